"""The Lua program that HAProxy loads: functions that its configuration language does not have.

The program is fixed text; values come from variables. The path is decoded, its dots are resolved and its slashes
merged, as nginx does, and encoded in one way: so a map finds every spelling. The address of a client is found in the
header of its proxies. Passwords are checked against hashes that crypt(3) has not.
"""

from __future__ import annotations

from typing import Final

PROGRAM: Final = r"""-- Written by rulegen.
local MOST = 8000

local function encoded(text, set)
  return (text:gsub(set, function(byte) return string.format("%%%02X", string.byte(byte)) end))
end

local function decoded(text)
  local is_bad = false
  local result = text:gsub("%%(.?.?)", function(digits)
    local number = digits:match("^%x%x$") and tonumber(digits, 16)
    if not number or number == 0 then
      is_bad = true
      return ""
    end
    return string.char(number)
  end)
  return not is_bad and result or nil
end

local function resolved(text)
  local parts, count, last = {}, 0, ""
  for part in (text:sub(2) .. "/"):gmatch("([^/]*)/") do
    last = part
    if part == ".." then
      if count == 0 then return nil end
      count = count - 1
    elseif part ~= "" and part ~= "." then
      count = count + 1
      parts[count] = part
    end
  end
  local result = "/" .. table.concat(parts, "/", 1, count)
  if count > 0 and (last == "" or last == "." or last == "..") then result = result .. "/" end
  return result
end

-- txn.path: decoded; txn.key: the key of maps; txn.wildcard: the host with * as its first label.
core.register_action("rulegen_path", { "http-req" }, function(txn)
  local raw = txn.f:path()
  local text = raw and raw:sub(1, 1) == "/" and decoded(raw)
  text = text and resolved(text)
  if not text or #text > MOST then
    txn:set_var("txn.is_bad", true)
    return
  end
  txn:set_var("txn.path", text)
  txn:set_var("txn.key", encoded(text, "[^%w_%.~/%-]"))
  if text:find("%c") then txn:set_var("txn.has_control", true) end
  txn:set_var("txn.redirect_uri", (txn.f:pathq():gsub("/$", "")))
  local rest = (txn:get_var("txn.host") or ""):match("^[%w_%-]+(%..+)$")
  if rest then txn:set_var("txn.wildcard", "*" .. rest) end
end)

-- txn.uri: the path that a rewrite has made, encoded, with the query of the request behind its own.
core.register_action("rulegen_rewrite", { "http-req" }, function(txn)
  local path = txn:get_var("txn.rewritten")
  if not path then return end
  local query = txn:get_var("txn.rewritten_query")
  local own = txn.f:query()
  query = query and encoded(query, "[%z\1-\32#\127-\255]") or ""
  if own and own ~= "" then query = query == "" and own or query .. "&" .. own end
  local uri = encoded(path, "[%z\1-\32#%%?\127-\255]")
  txn:set_var("txn.uri", query == "" and uri or uri .. "?" .. query)
end)

local trusted = Map.new("maps/trusted.map", Map._ip)

-- txn.client: the last address in a header that is not one of a trusted proxy.
core.register_action("rulegen_client", { "http-req" }, function(txn, name)
  local address = txn.f:src()
  local lines = txn.http:req_get_headers()[name:lower()]
  local items = {}
  for number = 0, lines and #lines or -1 do
    for item in lines[number]:gmatch("[^,%s]+") do items[#items + 1] = item end
  end
  for number = #items, 1, -1 do
    if trusted:lookup(address) ~= (address:find(":", 1, true) and "6" or "4") then break end
    local item = items[number]:match("^([%d.]+):%d+$") or items[number]:match("^%[([%x:.]+)%]") or items[number]
    item = item:match("^::[Ff][Ff][Ff][Ff]:(%d+%.%d+%.%d+%.%d+)$") or item
    if not (item:match("^%d+%.%d+%.%d+%.%d+$") or item:match("^[%x:.]*:[%x:.]*$")) then break end
    if not core.parse_addr(item) then break end
    address = item
  end
  txn:set_var("txn.client", address)
end, 1)

local DIGITS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

local function base64_of_md5(sum)
  local out = {}
  local function put(value, count)
    for _ = 1, count do
      local at = value % 64 + 1
      out[#out + 1] = DIGITS:sub(at, at)
      value = value // 64
    end
  end
  for _, at in ipairs({ { 1, 7, 13 }, { 2, 8, 14 }, { 3, 9, 15 }, { 4, 10, 16 }, { 5, 11, 6 } }) do
    put((sum:byte(at[1]) << 16) | (sum:byte(at[2]) << 8) | sum:byte(at[3]), 4)
  end
  put(sum:byte(12), 2)
  return table.concat(out)
end

local function apr1(convert, password, salt)
  local function md5(text) return convert:digest(text, "md5") end
  local other = md5(password .. salt .. password)
  local text = password .. "$apr1$" .. salt
  for left = #password, 1, -16 do text = text .. other:sub(1, math.min(16, left)) end
  local left = #password
  while left > 0 do
    text = text .. (left & 1 == 1 and "\0" or password:sub(1, 1))
    left = left >> 1
  end
  local sum = md5(text)
  for round = 0, 999 do
    local odd = round & 1 == 1
    local next = odd and password or sum
    if round % 3 ~= 0 then next = next .. salt end
    if round % 7 ~= 0 then next = next .. password end
    sum = md5(next .. (odd and sum or password))
  end
  return base64_of_md5(sum)
end

local function equals(convert, stored, password)
  local salt, sum = stored:match("^%$apr1%$([^$]*)%$(.*)$")
  if salt then return apr1(convert, password, salt:sub(1, 8)) == sum end
  sum = stored:match("^{SHA}(.*)$")
  if sum then return convert:base64(convert:sha1(password)) == sum end
  sum = stored:match("^{SSHA}(.*)$")
  if sum then
    local raw = convert:b64dec(sum)
    return raw and #raw > 20 and convert:sha1(password .. raw:sub(21)) == raw:sub(1, 20)
  end
  sum = stored:match("^{PLAIN}(.*)$")
  return sum ~= nil and sum == password
end

-- txn.is_known: whether the password is the one that txn.stored is the hash of.
core.register_action("rulegen_password", { "http-req" }, function(txn)
  local stored, password = txn:get_var("txn.stored"), txn.f:http_auth_pass()
  if stored and password and equals(txn.c, stored, password) then txn:set_var("txn.is_known", true) end
end)
"""
