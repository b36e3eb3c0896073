-- queue_of(lane) -> the queue's name of '<queue>/<priority>'.
local function queue_of(lane)
  return string.sub(lane, 1, -3)
end

-- entry_name(lane, id) -> what workers call a stream entry: ids alone repeat from lane to lane.
local function entry_name(lane, id)
  return lane .. ' ' .. id
end

-- add_entry(lanes, prefix, lane, id) -> the id of a new entry at the end of the lane. A lane without
-- a stream is opened: it is listed, and its stream made with its group; '0' leaves out nothing.
local function add_entry(lanes, prefix, lane, id)
  local stream = prefix .. lane
  local entry = call('XADD', stream, 'NOMKSTREAM', '*', 'i', id)
  if entry then return entry end
  call('SADD', lanes, lane)
  call('XGROUP', 'CREATE', stream, 'g', '0', 'MKSTREAM')
  return call('XADD', stream, '*', 'i', id)
end

-- park(idle, queue, worker): it waits to be woken. A set whose workers are all gone goes too: those
-- that live look at their queues every second and come back into it.
local function park(idle, queue, worker)
  call('SADD', idle .. queue, worker)
  call('PEXPIRE', idle .. queue, 60000)
end

-- wake_idle(idle, channel, queue, jobs): as many parked workers as there are new jobs. One that no
-- longer listens does not count.
local function wake_idle(idle, channel, queue, jobs)
  local wanted = math.min(jobs, 32)
  while wanted > 0 do
    local workers = call('SPOP', idle .. queue, wanted)
    if #workers == 0 then return end
    for i = 1, #workers do
      if call('PUBLISH', channel .. workers[i], 'work') > 0 then wanted = wanted - 1 end
    end
  end
end

-- drop_entries(prefix, entries): entries[lane] = {stream ids}; out of the group and the stream.
-- In pieces, because Lua passes no more than some 8,000 arguments.
local function drop_entries(prefix, entries)
  for lane, ids in pairs(entries) do
    for first = 1, #ids, 4000 do
      local last = math.min(first + 3999, #ids)
      call('XACK', prefix .. lane, 'g', unpack(ids, first, last))
      call('XDEL', prefix .. lane, unpack(ids, first, last))
    end
  end
end

-- collect(entries, lane, id): remember one stream entry for drop_entries.
local function collect(entries, lane, id)
  local ids = entries[lane]
  if ids then ids[#ids + 1] = id else entries[lane] = { id } end
end
