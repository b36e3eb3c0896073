-- Read the whole state at one moment; writes nothing.
--
-- KEYS  1 jobs  2 lanes prefix  3 lanes  4 due  5 workers  6 held  7 dead  8 description prefix
--       9 failed prefix  10 stats prefix  11 malformed
-- ARGV  1 clock offset  2 failure ttl (ms)  3 most lanes  4 most workers  5 entries looked at in all
-- Returns {server's time (ms), minutes, lanes, failed, workers, due, malformed, dead, cut}:
--       minutes  counters of this minute and the five before it, each {counter, count, ...}
--       lanes    {lane, waiting, handed out, consumers, ms the first has waited or -1}
--       failed   {queue, failed jobs}
--       workers  {worker, jobs it holds, description or nil, ms the description has left}
--       due      {scheduled, of these past their time, ms until the first, or nil}
--       cut      how many lanes and workers were left out
-- Called by broker/overview.py.
--
-- Entries of jobs that were cancelled or expired stay in their stream until a fetch meets them. So
-- the first few entries of a lane are looked at: a short lane is counted exactly.
local call = redis.call
--@include clock
--@include lane
local jobs, prefix, lanes, due, workers, held, dead, descriptions, failed, stats, malformed =
  unpack(KEYS)
local offset, ttl = tonumber(ARGV[1]), tonumber(ARGV[2])
local most_lanes, most_workers, looks = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local SHARE = 16
local now = clock(offset)
local cut = 0

-- What others put in the place of something is shown as nothing there, and hides nothing else.
local function ask(otherwise, ...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then return otherwise end
  return reply
end

local function group_of(stream)
  local reply = redis.pcall('XINFO', 'GROUPS', stream)
  for i = 1, reply.err and 0 or #reply do
    local group = {}
    for n = 1, #reply[i], 2 do group[reply[i][n]] = reply[i][n + 1] end
    if group.name == 'g' then return group end
  end
end

local function look_at(lane)
  local stream = prefix .. lane
  local group = group_of(stream)
  if not group then return { lane, 0, 0, 0, -1 } end
  local share = math.max(1, math.min(SHARE, looks))
  local from = '(' .. group['last-delivered-id']
  local entries = call('XRANGE', stream, from, '+', 'COUNT', share)
  looks = looks - #entries
  local live, first = 0, nil
  for _, entry in ipairs(entries) do
    if ask(false, 'HGET', jobs .. tostring(entry[2][2]), 's') == 'q' then
      live = live + 1
      first = first or entry[1]
    end
  end
  local waiting = live
  if #entries == share then
    waiting = math.max(0, call('XLEN', stream) - group.pending)
    first = first or entries[1][1]
  end
  -- The ids of entries are the server's own time, whatever the offset.
  local since = first and math.max(0, now - offset - string.match(first, '^%d+')) or -1
  return { lane, waiting, group.pending, group.consumers, since }
end

local function lanes_and_queues()
  local found, queues, known = {}, {}, {}
  for _, lane in ipairs(call('SMEMBERS', lanes)) do
    if #found == most_lanes then
      cut = cut + 1
    else
      found[#found + 1] = look_at(lane)
      local queue = queue_of(lane)
      if not known[queue] then
        known[queue] = true
        queues[#queues + 1] = { queue, ask(0, 'ZCOUNT', failed .. queue, now - ttl, '+inf') }
      end
    end
  end
  return found, queues
end

local function all_workers()
  local found = {}
  local names = call('HKEYS', workers)
  for i = 1, math.min(#names, most_workers) do
    local name = names[i]
    local key = descriptions .. name
    local holds = tonumber(ask(false, 'HGET', held, name) or '') or 0
    found[i] = { name, holds, ask(false, 'GET', key), call('PTTL', key) }
  end
  cut = cut + math.max(0, #names - most_workers)
  return found
end

local minutes = {}
for back = 0, 5 do
  minutes[back + 1] = ask({}, 'HGETALL', stats .. (math.floor(now / 60000) - back))
end

local found, queues = lanes_and_queues()
local first = call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]
local scheduled = { call('ZCARD', due), call('ZCOUNT', due, '-inf', now), first and first - now or nil }
return {
  now, minutes, found, queues, all_workers(), scheduled, ask(0, 'LLEN', malformed),
  call('SMEMBERS', dead), cut,
}
