"""The part of the Lua program that asks auth servers. It is fixed text; values come from variables and from a map."""

from __future__ import annotations

from typing import Final

AUTH: Final = r"""
local auth_servers = Map.new("maps/auth-servers.map", Map._str)
local NOT_PASSED = { host = 1, connection = 1, proxy = 1, expect = 1, upgrade = 1, te = 1, trailer = 1,
  ["content-length"] = 1, ["transfer-encoding"] = 1, ["keep-alive"] = 1, ["proxy-connection"] = 1,
  ["x-forwarded-proto"] = 1, ["http2-settings"] = 1 }
local CALLS = { GET = "get", HEAD = "head", POST = "post", PUT = "put", DELETE = "delete" }

local function address_of(txn, what)
  local servers = txn:get_var("txn." .. what .. "_servers")
  if servers then
    local list = {}
    for server in servers:gmatch("[^,]+") do list[#list + 1] = server end
    return list[(txn.f:rand(math.max(#list, 1)) or 0) + 1]
  end
  local address, port = txn:get_var("txn." .. what .. "_address"), txn:get_var("txn." .. what .. "_port")
  if not address or not port then return nil end
  return (address:find(":") and "[" .. address .. "]" or address) .. ":" .. port
end

local function headers_of(txn, host, without)
  local headers = {}
  for name, values in pairs(txn.http:req_get_headers()) do
    if not without[name] then
      headers[name] = {}
      for number = 0, #values do headers[name][number + 1] = values[number] end
    end
  end
  headers.host = { host }
  return headers
end

local function listed(names)
  return names == "-" and function() end or names:gmatch("[^,]+")
end

-- What a client is sent back with, as a parameter of a URL: escaped as nginx does.
core.register_converters("rulegen_escape", function(text)
  return (text:gsub("[^%w%-._~/:=@,;!*]", function(byte) return string.format("%%%02X", string.byte(byte)) end))
end)

-- A certificate as a text that fits into a header: PEM, escaped as nginx does.
core.register_converters("rulegen_pem", function(text)
  local lines = text:gsub(("."):rep(64), "%0\n"):gsub("\n$", "")
  local pem = "-----BEGIN CERTIFICATE-----\n" .. lines .. "\n-----END CERTIFICATE-----\n"
  return (pem:gsub("[^%w%-._~]", function(byte) return string.format("%%%02X", string.byte(byte)) end))
end)

local kept, kept_count = {}, 0
local MOST_KEPT = 10000
local NOT_KEPT = { "set-cookie", "cache-control", "expires", "vary", "x-accel-expires" }

-- The key of a kept answer; nil if there is none, or if two clients could have the same.
local function kept_key(txn)
  local id, key, bars = txn:get_var("txn.auth_cache"), txn:get_var("txn.auth_key"), txn:get_var("txn.auth_bars")
  if not id or not key or select(2, key:gsub("|", "")) ~= tonumber(bars) then return nil end
  return id .. "|" .. key
end

local function keep(key, times, answer, headers)
  for _, name in ipairs(NOT_KEPT) do
    if headers[name] then return end
  end
  local length = headers["content-length"] and headers["content-length"][0] or ""
  if not length:match("^%d%d?%d?%d?%d?$") then return end  -- as with nginx, which reads all of a kept answer
  local seconds = tonumber((times .. ","):match("%f[%d]" .. answer.code .. "=(%d+),"))
  if not seconds then return end
  if kept_count >= MOST_KEPT then kept, kept_count = {}, 0 end
  if not kept[key] then kept_count = kept_count + 1 end
  answer.ends = core.now().sec + seconds
  kept[key] = answer
end

local function obey(txn, answer)
  if answer.cookie then txn:set_var("txn.auth_cookie", answer.cookie) end
  if answer.challenge then txn:set_var("txn.auth_challenge", answer.challenge) end
  for number, value in pairs(answer.headers) do txn:set_var("txn.auth_header" .. number, value) end
  txn:set_var("txn.auth_status", answer.is_ok and "ok" or tostring(answer.code))
end

-- txn.auth_status: "ok", or the status that the auth server answered; txn.auth_cookie, txn.auth_challenge and
-- txn.auth_header0 and so on: headers.
core.register_action("rulegen_auth", { "http-req" }, function(txn, set, wanted)
  txn:set_var("txn.auth_status", "500")
  local key = kept_key(txn)
  local known = key and kept[key]
  if known and known.ends > core.now().sec then return obey(txn, known) end
  local address, call = address_of(txn, "auth"), CALLS[txn:get_var("txn.auth_method")]
  local url, host = txn:get_var("txn.auth_url"), txn:get_var("txn.auth_host")
  if not address or not call or not url or not host then return end
  local headers = headers_of(txn, host, NOT_PASSED)
  local number = 0
  for name in set:gmatch("[^,]+") do
    local value = txn:get_var("txn.auth_set" .. number)
    headers[name:lower()] = value and value ~= "" and { value } or nil
    number = number + 1
  end
  local client = core.httpclient()
  local question = { url = url, dst = address, headers = headers, timeout = 60000 }
  local answered, response = pcall(client[call], client, question)
  if not answered or not response or not response.status then return end
  local got = response.headers or {}
  local function header(name) return got[name] and got[name][0] end
  local is_ok = response.status >= 200 and response.status < 300
  local answer = { code = response.status, is_ok = is_ok, cookie = header("set-cookie"), headers = {} }
  if response.status == 401 then answer.challenge = header("www-authenticate") end
  number = 0
  for name in listed(is_ok and wanted or "-") do
    answer.headers[number] = header(name:lower())
    number = number + 1
  end
  if key then keep(key, txn:get_var("txn.auth_times") or "", answer, got) end
  obey(txn, answer)
end, 2)

local MIRRORED = {}
for name in pairs(NOT_PASSED) do MIRRORED[name] = 1 end
MIRRORED["x-forwarded-proto"] = nil
local mirroring, MOST_MIRRORING = 0, 1000

-- A copy of the request is sent; nobody waits for the answer.
core.register_action("rulegen_mirror", { "http-req" }, function(txn, body)
  local address, call = address_of(txn, "mirror"), CALLS[txn.f:method()]
  local url, host = txn:get_var("txn.mirror_url"), txn:get_var("txn.mirror_host")
  if not address or not call or not url or not host or mirroring >= MOST_MIRRORING then return end
  local question = { url = url, dst = address, headers = headers_of(txn, host, MIRRORED), timeout = 60000 }
  if body == "body" then question.body = txn.f:req_body() end
  mirroring = mirroring + 1
  core.register_task(function()
    local client = core.httpclient()
    pcall(client[call], client, question)
    mirroring = mirroring - 1
  end)
end, 1)
"""
