-- Remove what is no longer used: lanes that stay empty, entries of jobs that no longer wait. And list
-- lanes and workers again that exist but were lost from their lists.
--
-- KEYS  1 jobs  2 lanes prefix  3 lanes  4 swept  5 workers  6 serves
-- ARGV  1 cursor, '0' to begin  2 about how many queues to look at  3 how many entries of a lane
--       4 how long an empty lane is kept (ms)  5 about how many lanes and entries to look at in all
-- Returns the cursor to continue with, '0' at the end.
-- Called by broker/broker.py, by the worker that promotes.
--
-- A fetch drops the entries of cancelled and expired jobs that it reads, so a queue that is served needs
-- no sweep. This checks a few entries of each lane from which nothing was fetched for a minute, and
-- remembers its position. Entry ids hold the server's own time, without the clock offset.
--
-- Entries that a worker holds are never touched: they are needed to return its jobs.
local call = redis.call
--@include healing
--@include lane
local jobs, prefix, lanes, swept, workers, serves = unpack(KEYS)
local count, keep, budget = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function age_of(id)
  return now - tonumber(string.match(id, '^%d+'))
end

local function later_of(one, other)
  local ms, seq = string.match(one, '^(%d+)%-(%d+)$')
  if not ms then return other end
  local other_ms, other_seq = string.match(other, '^(%d+)%-(%d+)$')
  if ms == other_ms then return tonumber(seq) > tonumber(other_seq) and one or other end
  return tonumber(ms) > tonumber(other_ms) and one or other
end

local function facts(reply)
  local found = {}
  for i = 1, reply.err and 0 or #reply, 2 do found[reply[i]] = reply[i + 1] end
  return found
end

-- An entry without a valid job stays, for the fetch that moves it to `malformed`.
local function is_stale(entry)
  local state = redis.pcall('HGET', jobs .. tostring(entry[2][2]), 's')
  return state ~= 'q' and type(state) ~= 'table'
end

-- Stores the position in a lane; nil at its end.
local function remember(field, after)
  if after then
    call('HSET', swept, field, after)
    call('PEXPIRE', swept, 86400000)
  else
    call('HDEL', swept, field)
  end
end

-- Entries that were not fetched yet.
local function sweep_waiting(lane, delivered)
  local after = later_of(healing('HGET', swept, lane) or '', delivered)
  local entries = call('XRANGE', prefix .. lane, '(' .. after, '+', 'COUNT', count)
  for _, entry in ipairs(entries) do
    if is_stale(entry) then call('XDEL', prefix .. lane, entry[1]) end
  end
  remember(lane, #entries == count and entries[count][1])
  budget = budget - #entries
end

-- Entries of returned jobs and of suspects.
local function sweep_returned(lane, owner)
  local stream, field = prefix .. lane, lane .. owner
  local after = later_of(healing('HGET', swept, field) or '', '0-0')
  local rows = redis.pcall('XPENDING', stream, 'g', '(' .. after, '+', count, owner)
  for i = 1, rows.err and 0 or #rows do
    local entry = call('XRANGE', stream, rows[i][1], rows[i][1])[1]
    if not entry or is_stale(entry) then
      call('XACK', stream, 'g', rows[i][1])
      call('XDEL', stream, rows[i][1])
    end
  end
  remember(field, not rows.err and #rows == count and rows[count][1])
  budget = budget - (rows.err and 0 or #rows)
end

local function group_of(stream)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  for i = 1, groups.err and 0 or #groups do
    local group = facts(groups[i])
    if group.name == 'g' then return group end
  end
end

local function sweep(queue, sign, signs)
  local lane = lane_of(queue, sign)
  budget = budget - 1
  local stream = facts(redis.pcall('XINFO', 'STREAM', prefix .. lane))
  if not stream.length then return unmark(lanes, queue, sign) end
  if stream.length == 0 then
    if age_of(stream['last-generated-id']) > keep then
      call('DEL', prefix .. lane)
      unmark(lanes, queue, sign)
    end
    return
  end
  local group = group_of(prefix .. lane)
  if not group then return end
  local first = call('XRANGE', prefix .. lane, '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1]
  if first and age_of(first[1]) > 60000 then sweep_waiting(lane, group['last-delivered-id']) end
  if string.find(signs, 'r', 1, true) then sweep_returned(lane, RETURNED) end
  if string.find(signs, 's', 1, true) then sweep_returned(lane, SUSPECTS) end
end

-- When `lanes` was lost and streams were not, their jobs would wait for ever.
local function list_lanes(queue)
  local signs, lost = healing('HGET', lanes, queue) or '', ''
  for byte = 48, 84 do
    local sign = string.char(byte)
    if string.find(sign, LANES) and not string.find(signs, sign, 1, true) and
      call('EXISTS', prefix .. lane_of(queue, sign)) == 1 then lost = lost .. sign end
  end
  -- There may be returned jobs and suspects; the next fetch finds out.
  if lost ~= '' then call('HSET', lanes, queue, string.gsub(signs, '[rs]', '') .. lost .. 'rs') end
  budget = budget - 30
end

-- A few workers at a time; one that was lost from the heartbeats is listed as dead, to be reaped.
local function look_at_workers()
  local after = string.match(healing('HGET', swept, 'serves') or '', '^%d+$') or '0'
  local page = healing('HSCAN', serves, after, 'COUNT', 10)
  local known, queues = {}, {}
  for i = 1, #page[2], 2 do
    if not healing('ZSCORE', workers, page[2][i]) then call('ZADD', workers, -1, page[2][i]) end
    known[page[2][i + 1]] = true
  end
  remember('serves', page[1] ~= '0' and page[1])
  for text in pairs(known) do
    for queue in string.gmatch(text, '%S+') do queues[#queues + 1] = queue end
  end
  -- Different ones each time: there may be thousands.
  for i = 1, math.min(#queues, 20) do list_lanes(queues[(now + i) % #queues + 1]) end
end

local listed = healing('HLEN', lanes)
local cursor, from = string.match(ARGV[1], '^(%d+):?(%d*)$')
if ARGV[1] == '0' then look_at_workers() end
local page = healing('HSCAN', lanes, cursor, 'COUNT', ARGV[2])
for i = (tonumber(from) or 0) + 1, #page[2], 2 do
  if budget <= 0 then
    -- Queues that were removed from the list no longer count in the position.
    return cursor .. ':' .. math.max(0, i - 1 - 2 * (listed - call('HLEN', lanes)))
  end
  for sign in string.gmatch(page[2][i + 1], LANES) do sweep(page[2][i], sign, page[2][i + 1]) end
end
return page[1]
