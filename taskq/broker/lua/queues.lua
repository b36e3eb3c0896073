-- Read the state of some queues; writes nothing.
--
-- KEYS  1 jobs  2 lanes prefix  3 lanes  4 failed prefix
-- ARGV  1 clock offset  2 failure ttl (ms)  3 cursor, '0' to begin  4 about how many queues and lanes
-- Returns {cursor, '0' at the end, lanes, failed}; a queue may come twice:
--       lanes   {lane, waiting, running, consumers, ms for which the first has waited or -1}
--       failed  {queue, failed jobs}
-- Called by ops/overview.py.
--
-- Entries of cancelled and expired jobs stay in their stream until a fetch reads them. So the first few
-- entries of a lane are checked: a short lane is counted exactly. Returned jobs and suspects are
-- pending for consumers that are not workers; they count as waiting.
local call = redis.call
--@include clock
--@include lane
local jobs, prefix, lanes, failed = unpack(KEYS)
local offset, ttl = tonumber(ARGV[1]), tonumber(ARGV[2])
local SHARE = 16
local now = clock(offset)

local function group_of(stream)
  local reply = redis.pcall('XINFO', 'GROUPS', stream)
  for i = 1, reply.err and 0 or #reply do
    local group = {}
    for n = 1, #reply[i], 2 do group[reply[i][n]] = reply[i][n + 1] end
    if group.name == 'g' then return group end
  end
end

-- How many entries were returned, of how many consumers, and the first of them.
local function put_back_in(stream)
  local count, owners, first = 0, 0, nil
  for _, row in ipairs(call('XPENDING', stream, 'g')[4] or {}) do
    if row[1] == RETURNED or row[1] == SUSPECTS then
      count, owners = count + row[2], owners + 1
      local id = call('XPENDING', stream, 'g', '-', '+', 1, row[1])[1][1]
      if not first or id < first then first = id end
    end
  end
  return count, owners, first
end

local function look_at(lane, signs)
  local stream = prefix .. lane
  local group = group_of(stream)
  if not group then return { lane, 0, 0, 0, -1 } end
  local back, owners, first = 0, 0, nil
  if string.find(signs, '[rs]') then back, owners, first = put_back_in(stream) end
  local entries = call('XRANGE', stream, '(' .. group['last-delivered-id'], '+', 'COUNT', SHARE)
  local live = 0
  for _, entry in ipairs(entries) do
    local state = redis.pcall('HGET', jobs .. tostring(entry[2][2]), 's')
    if state == 'q' then
      live = live + 1
      first = first or entry[1]
    end
  end
  local waiting = live
  if #entries == SHARE then
    waiting = math.max(0, call('XLEN', stream) - group.pending)
    first = first or entries[1][1]
  end
  -- Entry ids hold the server's own time, without the clock offset.
  local since = first and math.max(0, now - offset - string.match(first, '^%d+')) or -1
  return { lane, waiting + back, group.pending - back, group.consumers - owners, since }
end

local found, queues = {}, {}
local cursor, from = string.match(ARGV[3], '^(%d+):?(%d*)$')
local page = redis.pcall('HSCAN', lanes, cursor, 'COUNT', ARGV[4])
if page.err then return { '0', found, queues } end
for i = (tonumber(from) or 0) + 1, #page[2], 2 do
  -- The server returns a small hash in one page, whatever the count.
  if #found + #queues >= 2 * ARGV[4] then return { cursor .. ':' .. i - 1, found, queues } end
  local queue, signs = page[2][i], page[2][i + 1]
  for sign in string.gmatch(signs, LANES) do
    found[#found + 1] = look_at(lane_of(queue, sign), signs)
  end
  local kept = redis.pcall('ZCOUNT', failed .. queue, now - ttl, '+inf')
  queues[#queues + 1] = { queue, type(kept) == 'number' and kept or 0 }
end
return { page[1], found, queues }
