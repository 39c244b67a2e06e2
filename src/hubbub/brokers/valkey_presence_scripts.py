"""The scripts by which a Valkey or Redis server knows who is where: each is one atomic step.

What must not live here: connections, and what is asked when (`valkey_presence`); what members are told of
(`wire.presence`).

A room has six keys. A hash of its members, by name: how long the key of the person is, a colon, that key, and the
info as JSON. A sorted set of names, by when their leases end. A hash of how many members each person has who
is here. A sorted set of the keys of those who are away, by when their time of grace ends, and a hash of their
infos. A hash: `a` the number of the last change, `p` whether changes are not told, since the room is too large.
Times are the server's, in milliseconds. A number is the time in microseconds, or one more than the last: so it
grows, even if the server has forgotten all.

What is told has the form of a publication whose place is a kind, a number and a pause, with infos in JSON after it.
"""

from __future__ import annotations

from .presence import RESUME_SHARE

_COMMON = """
local members, leases, here, away, infos, state = unpack(KEYS)
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local function packed(key, info)
  return #key .. ':' .. key .. info
end
local function unpacked(value)
  local length, rest = string.match(value, '^(%d+):(.*)$')
  return string.sub(rest, 1, length), string.sub(rest, length + 1)
end
local function clients()
  return redis.call('HLEN', members) + redis.call('ZCARD', away)
end
local function people()
  return redis.call('HLEN', here) + redis.call('ZCARD', away)
end
local function remove(name)
  local value = redis.call('HGET', members, name)
  if not value then return nil end
  redis.call('HDEL', members, name)
  redis.call('ZREM', leases, name)
  local key, info = unpacked(value)
  if redis.call('HINCRBY', here, key, -1) > 0 then return nil end
  redis.call('HDEL', here, key)
  return key, info
end
local function next_number()
  local last = tonumber(redis.call('HGET', state, 'a') or '0')
  local number = math.max(last + 1, time[1] * 1000000 + time[2])
  local text = string.format('%.0f', number)
  redis.call('HSET', state, 'a', text)
  return text
end
local function tell(channel, kind, number, pause, list)
  local place = kind .. ' ' .. number .. ' ' .. pause
  redis.call('PUBLISH', channel, place .. '\\n[' .. table.concat(list, ',') .. ']')
end
local function is_paused()
  return redis.call('HGET', state, 'p') == '1'
end
local function changed(channel, kind, list, told_up_to)
  local count = people()
  if #list > 0 then
    local number = next_number()
    if told_up_to == 0 then
      -- nothing is told
    elseif not is_paused() and count > told_up_to then
      redis.call('HSET', state, 'p', 1)
      tell(channel, kind, number, '1', {})
    elseif not is_paused() then
      tell(channel, kind, number, '-', list)
    elseif count * 100 <= told_up_to * RESUME_PERCENT then
      redis.call('HDEL', state, 'p')
      tell(channel, kind, number, '0', {})
    end
  end
  if count == 0 then redis.call('HDEL', state, 'p') end
  return list
end
local function keep(ttl_ms)
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ttl_ms) end
end
""".replace("RESUME_PERCENT", str(round(100 * RESUME_SHARE)))

ENTER = (
    _COMMON
    + """
-- arguments: channel, told up to, ttl of the keys ms, lease ms, and for each member its name, key and info.
-- Returns 1 if the room was too large to tell of joins before this, and is (0: it was not), and the infos of those
-- who have joined.
local joined = {}
local was_paused = is_paused()
local until_ms = now_ms + ARGV[4]
for i = 5, #ARGV, 3 do
  local name, key, info = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local is_new = redis.call('HSET', members, name, packed(key, info)) == 1
  redis.call('ZADD', leases, until_ms, name)
  if is_new then
    local count = redis.call('HINCRBY', here, key, 1)
    local was_away = redis.call('ZREM', away, key) == 1
    if was_away then redis.call('HDEL', infos, key) end
    if count == 1 and not was_away then joined[#joined + 1] = info end
  end
end
changed(ARGV[1], 'j', joined, tonumber(ARGV[2]))
keep(ARGV[3])
return {was_paused and is_paused() and 1 or 0, joined}
"""
)

LEAVE = (
    _COMMON
    + """
-- arguments: channel, told up to, ttl of the keys ms, grace ms, and names. Returns the infos of those who have left.
local left = {}
local grace_ms = tonumber(ARGV[4])
for i = 5, #ARGV do
  local key, info = remove(ARGV[i])
  if key and grace_ms > 0 then
    redis.call('ZADD', away, now_ms + grace_ms, key)
    redis.call('HSET', infos, key, info)
  elseif key then
    left[#left + 1] = info
  end
end
changed(ARGV[1], 'l', left, tonumber(ARGV[2]))
keep(ARGV[3])
return left
"""
)

EXPIRE = (
    _COMMON
    + """
-- arguments: channel, told up to. Returns the infos of those who have left.
local left = {}
for _, key in ipairs(redis.call('ZRANGEBYSCORE', away, '-inf', now_ms)) do
  left[#left + 1] = redis.call('HGET', infos, key)
  redis.call('ZREM', away, key)
  redis.call('HDEL', infos, key)
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now_ms)) do
  local key, info = remove(name)
  if key then left[#left + 1] = info end
end
return changed(ARGV[1], 'l', left, tonumber(ARGV[2]))
"""
)

PRESENCE = (
    _COMMON
    + """
-- arguments: how many clients are to be named at most (-1: all). Returns the number of the last change, and the infos of
-- all who are in the room, those who are away first; no infos at all where there are more.
local at, most = redis.call('HGET', state, 'a') or '0', tonumber(ARGV[1])
if most >= 0 and clients() > most then return {at, false} end
local found = redis.call('HVALS', infos)
for _, value in ipairs(redis.call('HVALS', members)) do
  local _, info = unpacked(value)
  found[#found + 1] = info
end
return {at, found}
"""
)

STATS = (
    _COMMON
    + """
-- Returns how many clients and how many people are in the room.
return {clients(), people()}
"""
)
