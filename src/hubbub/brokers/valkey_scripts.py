"""The scripts by which a Valkey or Redis server publishes and keeps: each is one atomic step.

What must not live here: connections, and what is asked when (`valkey`); who is where (`valkey_presence_scripts`).

A room that remembers has two keys. A hash: `e` its epoch, `g` the state of the server in which that began, `o`
the offset of its newest publication, `b` the bytes of what is kept, `t` for how many milliseconds. A stream,
whose entries have the offset as their id: `d` the publication in its envelope, `t` the server's time in
milliseconds. A third key, for each sender, has the number of its last publication for a while: so a second try
of the same is known. `PUBLISH` sends the position, a space between its halves, a newline, and the envelope; of
a run an `r`, the position of the first, a newline, and each envelope behind its length and a colon.

In a cluster a state names its shard and its node. A room that has come from another shard with its slot has
lost nothing; one whose shard has another primary may have. There, scripts publish with `SPUBLISH`: see
`sharded`.

A server without memory refuses a script at its first write, if that is one that takes memory, and no later one. So what
takes memory comes first, and nothing is done by halves.
"""

from __future__ import annotations

_COMMON = """
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function holds_on(old, new)
  if old == new then return true end
  local old_shard, new_shard = string.match(old or '', '^@(%w+) '), string.match(new, '^@(%w+) ')
  return old_shard and new_shard and old_shard ~= new_shard
end
local function epoch_of(meta, stream, fresh, ttl_ms, state)
  local epoch, old = redis.call('HGET', meta, 'e'), redis.call('HGET', meta, 'g')
  if epoch and old ~= state and holds_on(old, state) then redis.call('HSET', meta, 'g', state) end
  if not epoch or not holds_on(old, state) then
    epoch = fresh
    redis.call('HSET', meta, 'e', epoch, 'o', 0, 'b', 0, 't', 0, 'g', state)
    redis.call('DEL', stream)
    redis.call('PEXPIRE', meta, ttl_ms)
  end
  return epoch
end
local function oldest(stream)
  return redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
end
local function field(entry, name)
  for i = 1, #entry[2], 2 do
    if entry[2][i] == name then return entry[2][i + 1] end
  end
end
local function offset_of(entry)
  return string.match(entry[1], '^%d+')
end
local function lose(meta, stream, entry)
  redis.call('XDEL', stream, entry[1])
  return redis.call('HINCRBY', meta, 'b', -#field(entry, 'd'))
end
local function lose_aged(meta, stream, ttl_ms)
  local limit = now_ms() - ttl_ms
  local first = oldest(stream)
  while first and tonumber(field(first, 't')) <= limit do
    lose(meta, stream, first)
    first = oldest(stream)
  end
end
"""

PUBLISH = (
    _COMMON
    + """
-- keys: hash, stream, last of the sender, [key]; arguments: channel, entries, ttl ms, bytes, ttl of the hash ms,
-- ttl of the key ms, ttl of the number ms, fresh epoch, state, and for each of a run its number and its envelope
-- (with a key there is one). The numbers of a sender grow: one that is not larger than the last is tried again, or has
-- come late by a connection that was given up.
-- Returns whether a publication with the key was here before, and the positions ('': none, or not known).
local meta, stream, sender, key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local entries, ttl_ms, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local last = tonumber(redis.call('GET', sender) or '0')
local places, new = {}, {}
local function place_of(envelope)
  for _, entry in ipairs(redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1000)) do
    if field(entry, 'd') == envelope then
      return offset_of(entry) .. ' ' .. redis.call('HGET', meta, 'e')
    end
  end
  return ''
end
for i = 10, #ARGV, 2 do
  if tonumber(ARGV[i]) <= last then
    places[#places + 1] = place_of(ARGV[i + 1])
  else
    new[#new + 1] = ARGV[i + 1]
  end
end
if #new == 0 then return {0, places} end
if key then
  local seen = redis.call('GET', key)
  if seen then return {1, {seen}} end
end
local first = ''
if entries > 0 then
  local epoch = epoch_of(meta, stream, ARGV[8], ARGV[5], ARGV[9])
  if redis.call('EXISTS', stream) == 0 then redis.call('HSET', meta, 'b', 0) end
  local offset = redis.call('HINCRBY', meta, 'o', #new) - #new
  redis.call('HSET', meta, 't', ttl_ms)
  local bytes, now = 0, now_ms()
  first = string.format('%d %s', offset + 1, epoch)
  for i, envelope in ipairs(new) do
    redis.call('XADD', stream, string.format('%d-0', offset + i), 'd', envelope, 't', now)
    bytes = bytes + #envelope
    places[#places + 1] = string.format('%d %s', offset + i, epoch)
  end
  bytes = redis.call('HINCRBY', meta, 'b', bytes)
  local count = redis.call('XLEN', stream)
  while count > 0 and (count > entries or bytes > most) do
    bytes = lose(meta, stream, oldest(stream))
    count = count - 1
  end
  lose_aged(meta, stream, ttl_ms)
  redis.call('PEXPIRE', stream, ttl_ms)
  redis.call('PEXPIRE', meta, ARGV[5])
else
  places[#places + 1] = ''
end
redis.call('SET', sender, ARGV[#ARGV - 1], 'PX', ARGV[7])
if key then redis.call('SET', key, first, 'PX', ARGV[6]) end
if #new == 1 then
  redis.call('PUBLISH', ARGV[1], first .. '\\n' .. new[1])
else
  for i, envelope in ipairs(new) do new[i] = #envelope .. ':' .. envelope end
  redis.call('PUBLISH', ARGV[1], 'r' .. first .. '\\n' .. table.concat(new))
end
return {0, places}
"""
)

HISTORY = (
    _COMMON
    + """
-- keys: hash, stream; arguments: offset or '', epoch, limit or '', reverse, fresh epoch, ttl of the hash
-- ms, state, ttl of the hash of a room that never had a publication ms. Returns offset, epoch and entries; 1 for
-- another epoch, 2 for what is not kept any more.
local meta, stream = KEYS[1], KEYS[2]
local since, limit, reverse = tonumber(ARGV[1]), tonumber(ARGV[3]), ARGV[4] == '1'
local epoch = epoch_of(meta, stream, ARGV[5], ARGV[6], ARGV[7])
local ttl_ms = tonumber(redis.call('HGET', meta, 't'))
local top = tonumber(redis.call('HGET', meta, 'o'))
if top == 0 then
  redis.call('PEXPIRE', meta, ARGV[8])
else
  redis.call('PEXPIRE', meta, math.max(tonumber(ARGV[6]), ttl_ms or 0)) -- the hash outlasts what is kept
end
lose_aged(meta, stream, ttl_ms)
if since then
  if ARGV[2] ~= epoch or since > top then return 1 end
  if not reverse then
    local first = oldest(stream)
    local before = first and tonumber(offset_of(first)) - 1 or top
    if since < before then return 2 end
  end
end
local found = {}
if limit ~= 0 and not (reverse and since == 0) then
  local range
  if reverse then
    range = {'XREVRANGE', stream, since and string.format('(%d-0', since) or '+', '-'}
  else
    range = {'XRANGE', stream, since and string.format('(%d-0', since) or '-', '+'}
  end
  if limit then
    range[#range + 1] = 'COUNT'
    range[#range + 1] = limit
  end
  for _, entry in ipairs(redis.call(unpack(range))) do
    found[#found + 1] = {tonumber(offset_of(entry)), field(entry, 'd')}
  end
end
return {top, epoch, found}
"""
)

MARK = """
-- key: mark; argument: a fresh one. Returns the mark, which is a new one if the server has forgotten all. It is
-- written each time: a server that has become a replica says so.
local mark = redis.call('GET', KEYS[1]) or ARGV[1]
redis.call('SET', KEYS[1], mark)
return mark
"""

AGREE = """
-- key: the format; arguments: that of who asks, for how many milliseconds it holds. Returns the one that holds.
-- A server without memory keeps none, and is no reason not to start.
local held = redis.call('GET', KEYS[1])
if not held then
  redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return ARGV[1]
end
if held == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return held
"""


def sharded(script: str) -> str:
    """Return a script as it is in a cluster: it publishes to the shard that has the room."""
    return script.replace("redis.call('PUBLISH',", "redis.call('SPUBLISH',")
