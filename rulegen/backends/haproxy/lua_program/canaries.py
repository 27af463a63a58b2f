"""The part of the Lua program that chooses canaries. It is fixed text; conditions and shares come from a map."""

from __future__ import annotations

from typing import Final

CANARIES: Final = r"""
local function plain(text)
  return (text:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

local function last_value(headers, name)
  local values = headers[name:lower()]
  return values and values[#values]
end

-- What a cookie says; its name ignores case.
local function by_cookie(text, name)
  for part in (text .. ";"):gmatch("([^;]*);") do
    for from in ("," .. part):gmatch("(),") do
      local own, value = part:sub(from):match("^ *([^=]-) *= *(.*)$")
      if own and own:lower() == name:lower() then
        if value == "always" then return true end
        if value == "never" then return false end
      end
    end
  end
end

local function takes(txn, headers, share, mode, header, value, cookie)
  if header ~= "" then
    local got = last_value(headers, header)
    if mode == "unreadable" then
      if got then return false end
    elseif mode == "value" then
      if got == value then return true end
    else
      if got == "always" then return true end
      if got == "never" then return false end
    end
  end
  if cookie ~= "" then
    local said = by_cookie(last_value(headers, "cookie") or "", cookie)
    if said ~= nil then return said end
  end
  return txn.f:rand(10000) < share
end

-- txn.backend: that of the first canary that takes the request; each is `backend;share;mode;header;value;cookie`.
core.register_action("rulegen_canary", { "http-req" }, function(txn)
  local text = txn:get_var("txn.canaries")
  if not text then return end
  local headers = txn.http:req_get_headers()
  for canary in text:gmatch("%S+") do
    local backend, share, mode, header, value, cookie = canary:match("^(.-);(.-);(.-);(.-);(.-);(.-)$")
    if takes(txn, headers, tonumber(share), mode, plain(header), plain(value), plain(cookie)) then
      txn:set_var("txn.backend", backend)
      return
    end
  end
end)
"""
