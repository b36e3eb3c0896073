-- A lane is '<queue>/<priority>', followed by 't' for jobs that run in threads and 'p' for jobs that
-- run in processes, so that a worker takes only jobs of a kind that it can start.

-- queue_of(lane) -> its queue.
local function queue_of(lane)
  return string.sub(lane, 1, string.byte(lane, -1) < 58 and -3 or -4)
end

-- is_lane(text) -> whether the text is a valid lane.
local function is_lane(text)
  return text and string.find(text, '^[%w_.:-]+/%d[tp]?$') ~= nil
end

-- place_of(lane) -> where workers wait for its jobs: '<queue>', '<queue>/t' or '<queue>/p'.
local function place_of(lane)
  if string.byte(lane, -1) < 58 then return string.sub(lane, 1, -3) end
  return string.sub(lane, 1, -3) .. string.sub(lane, -1)
end

-- A pattern for the signs of lanes.
local LANES = '[%dA-T]'

-- sign_of(lane) -> the character for a lane among the signs of its queue: a digit, 'A' to 'J' for
-- threads, 'K' to 'T' for processes.
local function sign_of(lane)
  local last = string.byte(lane, -1)
  if last < 58 then return string.char(last) end
  return string.char(string.byte(lane, -2) + (last == 116 and 17 or 27))
end

-- lane_of(queue, sign) -> the lane for this sign.
local function lane_of(queue, sign)
  local byte = string.byte(sign)
  if byte < 58 then return queue .. '/' .. sign end
  if byte < 75 then return queue .. '/' .. string.char(byte - 17) .. 't' end
  return queue .. '/' .. string.char(byte - 27) .. 'p'
end

-- entry_name(lane, id) -> the name of a stream entry: entry ids are unique within their lane only.
local function entry_name(lane, id)
  return lane .. ' ' .. id
end

-- Consumers that are not workers: they hold the entries of returned jobs and of suspects. A stream
-- delivers each new entry once; pending for these consumers, returned entries keep their order.
local RETURNED, SUSPECTS = '(returned)', '(suspects)'

-- mark(lanes, queue, sign): adds a sign to a queue, so that a fetch knows where to look: the sign of
-- each lane that has a stream, 'r' when jobs were returned, 's' when suspects wait.
local function mark(lanes, queue, sign)
  local signs = healing('HGET', lanes, queue) or ''
  if not string.find(signs, sign, 1, true) then call('HSET', lanes, queue, signs .. sign) end
end

-- unmark(lanes, queue, sign): removes a sign, and the queue when no lane is left.
local function unmark(lanes, queue, sign)
  local signs = string.gsub(healing('HGET', lanes, queue) or '', sign, '')
  if not string.find(signs, LANES) then call('HDEL', lanes, queue) else call('HSET', lanes, queue, signs) end
end

-- add_entry(lanes, prefix, lane, id) -> the id of a new entry at the end of the lane. A lane without a
-- stream is listed first and gets a stream with a group, which delivers from the first entry ('0').
local function add_entry(lanes, prefix, lane, id)
  local stream = prefix .. lane
  local entry = redis.pcall('XADD', stream, 'NOMKSTREAM', '*', 'i', id)
  if entry then
    if not entry.err then return entry end
    healing('XLEN', stream)
  end
  mark(lanes, queue_of(lane), sign_of(lane))
  call('XGROUP', 'CREATE', stream, 'g', '0', 'MKSTREAM')
  return call('XADD', stream, '*', 'i', id)
end

-- put_back(lanes, prefix, lane, ids, owner, sign) -> the set of entries that were returned: they keep
-- their place and wait for another worker. Needs hardly any memory, so it also works on a full server.
local function put_back(lanes, prefix, lane, ids, owner, sign)
  local back = {}
  for first = 1, #ids, 1000 do
    local some = { unpack(ids, first, math.min(first + 999, #ids)) }
    some[#some + 1] = 'JUSTID'
    local claimed = redis.pcall('XCLAIM', prefix .. lane, 'g', owner, 0, unpack(some))
    for i = 1, #claimed do back[claimed[i]] = true end
  end
  if next(back) then mark(lanes, queue_of(lane), sign) end
  return back
end

-- park(idle, place, worker, now): adds a worker to those that wait to be woken. The set expires a
-- minute after its last worker. Live workers fetch every five seconds and renew it; to save calls for
-- workers of a thousand queues, they do so only during 6 of every 20 seconds.
local function park(idle, place, worker, now)
  if healing('SADD', idle .. place, worker) == 1 or now % 20000 < 6000 then
    call('PEXPIRE', idle .. place, 60000)
  end
end

-- wake_idle(idle, channel, place, jobs): wakes as many parked workers as there are new jobs. A worker
-- that no longer listens does not count.
local function wake_idle(idle, channel, place, jobs)
  local wanted = math.min(jobs, 1000)
  while wanted > 0 do
    local workers = healing('SPOP', idle .. place, wanted)
    if #workers == 0 then return end
    for i = 1, #workers do
      if call('PUBLISH', channel .. workers[i], 'work') > 0 then wanted = wanted - 1 end
    end
  end
end

-- drop_entries(prefix, entries): removes entries from group and stream; entries[lane] = {stream ids}.
-- In pieces, because Lua passes at most about 8,000 arguments.
local function drop_entries(prefix, entries)
  for lane, ids in pairs(entries) do
    for first = 1, #ids, 4000 do
      local last = math.min(first + 3999, #ids)
      healing('XACK', prefix .. lane, 'g', unpack(ids, first, last))
      call('XDEL', prefix .. lane, unpack(ids, first, last))
    end
  end
end

-- collect(entries, lane, id): adds one stream entry to those for drop_entries.
local function collect(entries, lane, id)
  local ids = entries[lane]
  if ids then ids[#ids + 1] = id else entries[lane] = { id } end
end
