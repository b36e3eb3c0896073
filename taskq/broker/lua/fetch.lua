-- Take up to `want` jobs for a worker: highest priority first, each marked running, with its envelope.
--
-- KEYS  1 jobs  2 lanes prefix  3 lanes  4 idle prefix  5 workers  6 held  7 expiry
--       8 done channel prefix  9 malformed
-- ARGV  1 clock offset  2 worker  3 want  4 which: 'h' highest priority first, 'l' lowest first,
--       's' suspects alone  5 failure ttl (ms)  6 and 7 how many at most for threads and for
--       processes  8 kinds in the order to take them, of 'l', 't' and 'p'  9 kinds it waits for
--       10 '1' when it may be in the idle sets already  then the queues, in the order to search them
-- Returns nil when the worker is not registered (declared dead), else {'1' when there may be more
--       behind what was skipped or did not fit, '1' when suspects wait in these queues, and then per
--       job what `taker` returns}.
-- Called by broker/consumer.py.
--
-- A reply ends with the job that reaches 4 MiB, because the server closes a subscribed connection with
-- 32 MiB unread. Entries that were read and do not fit are returned to their place.
--
-- A hundred thousand cancelled or expired jobs may stand first. They are skipped in pieces, so that
-- the server can serve other clients in between.
local call = redis.call
--@include clock
--@include healing
--@include lane
--@include over
--@include full
--@include take
--@include counter
local jobs, prefix, lanes, idle, workers, held, expiry, done, malformed = unpack(KEYS)
local worker, want, which = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local score = healing('ZSCORE', workers, worker)
if not score or tonumber(score) < 0 then return false end
local now = clock(ARGV[1])
local MOST_PASSED, MOST_BYTES = 2000, 4194304
local answer, dropped, taken, passed, bytes = { '0', '0' }, {}, 0, 0, 0
local room = { l = want, t = tonumber(ARGV[6]), p = tonumber(ARGV[7]) }
local FIRST = 11
-- Queues of which not every returned job, or not every suspect, was seen.
local left = {}

local take = taker(
  { jobs = jobs, expiry = expiry, done = done, now = now }, malformed, worker, tonumber(ARGV[5]), dropped
)

-- Takes the jobs of these entries; entries that do not fit are returned.
local function receive(lane, entries, kind)
  for i = 1, #entries do
    if bytes >= MOST_BYTES then
      local ids = {}
      for n = i, #entries do ids[#ids + 1] = entries[n][1] end
      put_back(lanes, prefix, lane, ids, RETURNED, 'r')
      left[queue_of(lane)] = true
      answer[1] = '1'
      return
    end
    local row = take(lane, entries[i])
    if row then
      taken = taken + 1
      room[kind] = room[kind] - 1
      answer[taken + 2] = row
      bytes = bytes + #(row[5] or '')
    else
      passed = passed + 1
    end
  end
end

local function drain(lane, read, kind)
  while taken < want and room[kind] > 0 and passed < MOST_PASSED and bytes < MOST_BYTES do
    local asked = math.min(want - taken, room[kind])
    local entries, found = read(prefix, lane, worker, asked)
    receive(lane, entries, kind)
    if (found or #entries) < asked then return end
  end
  left[queue_of(lane)] = true
end

local signs = {}
for first = FIRST, #ARGV, 1000 do
  local last = math.min(first + 999, #ARGV)
  local some = healing('HMGET', lanes, unpack(ARGV, first, last))
  for i = first, last do signs[i] = some[i - first + 1] or '' end
end
local all = table.concat(signs, '', FIRST, #ARGV)
if string.find(all, 's', 1, true) then answer[2] = '1' end

-- Made only where needed: each function costs time in every call of the script.
local claim_returned, drain_suspects
if which == 's' or string.find(all, 'r', 1, true) then
  local function pending(stream, owner, count)
    local rows = redis.pcall('XPENDING', stream, 'g', '-', '+', count, owner)
    return rows.err and {} or rows
  end

  -- An entry that was deleted from the stream is removed from the pending ones.
  local function claim(stream, id)
    local entry = call('XRANGE', stream, id, id)[1]
    if entry then
      call('XCLAIM', stream, 'g', worker, 0, id, 'JUSTID')
    else
      call('XACK', stream, 'g', id)
    end
    return entry
  end

  claim_returned = function(_, lane, _, count)
    local rows, entries = pending(prefix .. lane, RETURNED, count), {}
    for i = 1, #rows do entries[#entries + 1] = claim(prefix .. lane, rows[i][1]) end
    return entries, #rows
  end

  -- Takes suspects, no more than each of them may run together with: see reap.lua.
  drain_suspects = function(lane)
    local stream = prefix .. lane
    local asked = want + 1
    local rows = pending(stream, SUSPECTS, asked)
    for _, row in ipairs(rows) do
      local entry = call('XRANGE', stream, row[1], row[1])[1]
      local most = entry and tonumber(redis.pcall('HGET', jobs .. tostring(entry[2][2]), 'g')) or want
      if taken >= math.min(want, most) or bytes >= MOST_BYTES then
        want = taken
        left[queue_of(lane)] = true
        return
      end
      want = math.min(want, most)
      receive(lane, { claim(stream, row[1]) }, 'l')
    end
    if #rows == asked then left[queue_of(lane)] = true end
  end
end

local function visit(lane, marks, kind)
  if which == 's' then return drain_suspects(lane) end
  if string.find(marks, 'r', 1, true) then drain(lane, claim_returned, kind) end
  drain(lane, read_lane, kind)
end

-- Sort the existing lanes by priority: of a thousand queues most have a lane or two.
local BASE, SIGNS = { l = 48, t = 65, p = 75 }, { l = '%d', t = '[A-J]', p = '[K-T]' }
local kinds = string.find(all, '[A-T]') and ARGV[8] or 'l'
local ranks = {}
for i = FIRST, #ARGV do
  if signs[i] ~= '' then
    for n = 1, #kinds do
      local kind = string.sub(kinds, n, n)
      for sign in string.gmatch(signs[i], SIGNS[kind]) do
        local priority = string.byte(sign) - BASE[kind]
        local rank = ranks[priority]
        if not rank then
          rank = {}
          ranks[priority] = rank
        end
        rank[#rank + 1] = { lane_of(ARGV[i], sign), signs[i], kind }
      end
    end
  end
end
local from, to, step = 9, 0, -1
if which == 'l' then from, to, step = 0, 9, 1 end
for priority = from, to, step do
  local rank = ranks[priority]
  for n = 1, rank and #rank or 0 do visit(unpack(rank[n])) end
end

-- With suspects, another call would take more than may run together.
if which ~= 's' and (passed >= MOST_PASSED or bytes >= MOST_BYTES) then answer[1] = '1' end
pass_when_full(held)
local sign = which == 's' and 's' or 'r'
for i = FIRST, #ARGV do
  if string.find(signs[i], sign, 1, true) and not left[ARGV[i]] then
    unmark(lanes, ARGV[i], sign)
    local owner = which == 's' and SUSPECTS or RETURNED
    for lane in string.gmatch(signs[i], LANES) do
      redis.pcall('XGROUP', 'DELCONSUMER', prefix .. lane_of(ARGV[i], lane), 'g', owner)
    end
  end
end
drop_entries(prefix, dropped)
if taken > 0 then increase(held, worker, taken) end
local waits = taken < want and answer[1] == '0' and which ~= 's'
-- A worker with free slots waits to be woken; a full one must not use up a wake-up for another.
for i = FIRST, (waits or ARGV[10] == '1') and #ARGV or 0 do
  for n = 1, #ARGV[9] do
    local kind = string.sub(ARGV[9], n, n)
    local place = kind == 'l' and ARGV[i] or ARGV[i] .. '/' .. kind
    if waits and room[kind] > 0 then
      park(idle, place, worker, now)
    else
      healing('SREM', idle .. place, worker)
    end
  end
end
return answer
