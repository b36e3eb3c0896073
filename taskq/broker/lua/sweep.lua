-- Remove what is not used any more: lanes that stay empty, entries of jobs that wait no more.
--
-- KEYS  1 jobs  2 lanes prefix  3 lanes  4 swept
-- ARGV  1 cursor, '0' begins  2 how many queues to look at, about  3 how many entries of a lane
--       4 how long an empty lane is kept (ms)
-- Returns the cursor to go on with, '0' at the end.
-- Called by broker/upkeep.py, by the worker that promotes.
--
-- A fetch meets the entries of cancelled and expired jobs and drops them, so in a queue that is served
-- they go by themselves. This looks at a few of each lane that has stood still for a minute, and
-- remembers how far it came. Ids of entries are the server's own time, whatever the clock offset.
local call = redis.call
--@include lane
local jobs, prefix, lanes, swept = unpack(KEYS)
local count, keep = ARGV[3], tonumber(ARGV[4])
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function age_of(id)
  return now - tonumber(string.match(id, '^%d+'))
end

local function facts(reply)
  local found = {}
  for i = 1, reply.err and 0 or #reply, 2 do found[reply[i]] = reply[i + 1] end
  return found
end

-- Entries that nobody has fetched, after the last one that was looked at.
local function drop_stale(lane, delivered)
  local stream = prefix .. lane
  local after = call('HGET', swept, lane)
  local entries = call('XRANGE', stream, '(' .. (after or delivered), '+', 'COUNT', count)
  for _, entry in ipairs(entries) do
    local state = redis.pcall('HGET', jobs .. tostring(entry[2][2]), 's')
    -- What is no job stays for the fetch that keeps it aside.
    if state ~= 'q' and type(state) ~= 'table' then call('XDEL', stream, entry[1]) end
  end
  if #entries < tonumber(count) then
    if after then call('HDEL', swept, lane) end
  else
    call('HSET', swept, lane, entries[#entries][1])
    call('PEXPIRE', swept, 86400000)
  end
end

local function sweep(queue, sign)
  local lane = lane_of(queue, sign)
  local stream = facts(redis.pcall('XINFO', 'STREAM', prefix .. lane))
  if not stream.length then return unmark(lanes, queue, sign) end
  if stream.length == 0 then
    if age_of(stream['last-generated-id']) > keep then
      call('DEL', prefix .. lane)
      unmark(lanes, queue, sign)
    end
    return
  end
  local group = facts(call('XINFO', 'GROUPS', prefix .. lane)[1] or {})
  local delivered = group['last-delivered-id']
  local first = delivered and call('XRANGE', prefix .. lane, '(' .. delivered, '+', 'COUNT', 1)[1]
  if first and age_of(first[1]) > 60000 then drop_stale(lane, delivered) end
end

local page = call('HSCAN', lanes, ARGV[1], 'COUNT', ARGV[2])
for i = 1, #page[2], 2 do
  for sign in string.gmatch(page[2][i + 1], LANES) do sweep(page[2][i], sign) end
end
return page[1]
