-- Read the state of a namespace, except its queues, at one moment; writes nothing.
--
-- KEYS  1 due  2 workers  3 held  4 description prefix  5 stats prefix  6 malformed
-- ARGV  1 clock offset  2 the most workers to list
-- Returns {server's time (ms), minutes, workers, due, malformed, dead, cut}:
--       minutes  counters of this minute and the five before it, each {counter, count, ...}
--       workers  {worker, jobs it holds, description or nil, ms the description has left}
--       due      {scheduled, overdue, ms until the first or nil}
--       dead     workers that are partly reaped
--       cut      how many workers are not listed
-- Called by ops/overview.py.
local call = redis.call
--@include clock
local due, workers, held, descriptions, stats, malformed = unpack(KEYS)
local most = tonumber(ARGV[2])
local now = clock(ARGV[1])

-- Reads a key; one that another program replaced gives `otherwise`, and does not hide the rest.
local function ask(otherwise, ...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then return otherwise end
  return reply
end

local found = {}
for i, name in ipairs(ask({}, 'ZRANGEBYSCORE', workers, 0, '+inf', 'LIMIT', 0, most)) do
  local key = descriptions .. name
  local holds = tonumber(ask(false, 'HGET', held, name) or '') or 0
  found[i] = { name, holds, ask(false, 'GET', key), call('PTTL', key) }
end
local cut = math.max(0, ask(0, 'ZCOUNT', workers, 0, '+inf') - most)

local minutes = {}
for back = 0, 5 do
  minutes[back + 1] = ask({}, 'HGETALL', stats .. (math.floor(now / 60000) - back))
end

local first = ask({}, 'ZRANGE', due, 0, 0, 'WITHSCORES')[2]
local scheduled = { ask(0, 'ZCARD', due), ask(0, 'ZCOUNT', due, '-inf', now), first and first - now or nil }
return {
  now, minutes, found, scheduled, ask(0, 'LLEN', malformed),
  ask({}, 'ZRANGEBYSCORE', workers, '-inf', '(0'), cut,
}
