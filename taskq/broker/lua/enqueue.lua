-- Add jobs: due ones to their lane, later ones to the due set.
--
-- KEYS  1 jobs  2 lanes prefix  3 lanes  4 due  5 expiry  6 idle prefix  7 wake channel prefix
--       8 next channel  9 the producer's `sent`  10 workers  11 held  12 done channel prefix
--       13 malformed
-- ARGV  1 clock offset  2 the producer's batch number  3 ttl of the record of an expired job (ms)
--       4 number of the batch that must have been done before this one, 0 = none
--       then runs of jobs alike: how many, lane, when ('' now, '+ms', '@ms'), expires (likewise),
--       origin ('' for ids made by taskq; else what tells this request from another's), and per job
--       of the run: id, envelope
-- Returns one string, a character per job: '1' this request's job exists, '0' the id was taken; nil
--       and nothing done when the batch before this one was not done.
-- Called by broker/producer.py.
--
-- Sent twice, the second does nothing: a producer numbers its batches and this script does them in
-- that order, so the number of the last one tells whether this one was done. It is looked at every
-- time, because a network may deliver the first copy after the second. An id made by taskq is new
-- by its making; only ids chosen by callers are looked up.
--
-- A single job is handed to an idle worker here and now, with the push that would wake it: that saves
-- the worker the fetch. A worker that nobody can push to is left out; one that dies with the push
-- on its way is reaped as if it had fetched the job.
local call = redis.call
--@include clock
--@include lane
--@include over
--@include take
local jobs, prefix, lanes, due, expiry, idle, wake, next_channel, sent, workers, held, done, malformed =
  unpack(KEYS)
local number = tonumber(ARGV[2])
local last = tonumber(call('GET', sent) or '0')
if last < tonumber(ARGV[4]) then return false end
local repeated = last >= number
local now = clock(ARGV[1])
-- Numbers become text once: the server is slow at it.
local now_text = string.format('%.0f', now)
local answer, added, total = {}, {}, 0
local head

-- An id that a caller chose: whether a job has it, and whether this request made that job.
local function looked_up(key, origin)
  local stored = call('HMGET', key, 'e', 'o', 'f', 'l')
  if stored[3] and now > stored[3] + stored[4] and stored[2] ~= origin then
    -- Over, and its result has outlived its ttl: only a trace of it is left.
    call('DEL', key)
    return repeated, true
  end
  if not stored[1] then return repeated, true end
  return true, stored[2] == origin
end

local function nearer(at)
  if not head or at < head then head = at end
end

-- What only some jobs have, beside what `add_run` writes.
local function add_extras(key, id, due_at, expires_at, origin)
  if origin ~= '' then call('HSET', key, 'o', origin) end
  if expires_at then
    call('HSET', key, 'x', expires_at)
    call('ZADD', expiry, expires_at, id)
    nearer(expires_at)
  end
  if due_at then
    call('HSET', key, 'd', due_at)
    call('ZADD', due, due_at, id)
    nearer(due_at)
  end
end

-- The jobs of one run, from ARGV[first] to ARGV[final].
local function add_run(first, final, lane, due_at, expires_at, origin)
  local state = due_at and 'd' or 'q'
  local plain = not due_at and not expires_at and origin == ''
  local stream, queued, mine = prefix .. lane, 0, true
  for i = first, final, 2 do
    local id, key, taken = ARGV[i], jobs .. ARGV[i], repeated
    if origin ~= '' then taken, mine = looked_up(key, origin) end
    if not taken then
      call('HSET', key, 'e', ARGV[i + 1], 's', state, 'q', lane, 't', now_text)
      if not plain then add_extras(key, id, due_at, expires_at, origin) end
      if not due_at then
        if queued == 0 then open_lane(lanes, prefix, lane) end
        call('XADD', stream, '*', 'i', id)
        queued = queued + 1
      end
    end
    total = total + 1
    answer[total] = mine and '1' or '0'
  end
  if queued > 0 then added[queue_of(lane)] = (added[queue_of(lane)] or 0) + queued end
end

local first = 5
while first <= #ARGV do
  local final = first + 4 + 2 * ARGV[first]
  local due_at = instant(now, ARGV[first + 2])
  if due_at and due_at <= now then due_at = nil end
  add_run(first + 5, final, ARGV[first + 1], due_at, instant(now, ARGV[first + 3]), ARGV[first + 4])
  first = final + 1
end

-- A repetition writes nothing at all, so that a full server answers it too.
if not repeated then call('SET', sent, number, 'PX', 60000) end

local function give(worker, lane)
  local dropped = {}
  local take = taker(jobs, expiry, done, malformed, worker, now, tonumber(ARGV[3]), dropped)
  local entry = read_lane(prefix, lane, worker, 1)[1]
  local row = entry and take(lane, entry)
  drop_entries(prefix, dropped)
  if row then
    call('HINCRBY', held, worker, 1)
    call('PUBLISH', wake .. worker, 'job ' .. cmsgpack.pack(row))
  end
  return row
end

local function hand_over(lane)
  while true do
    local worker = call('SPOP', idle .. queue_of(lane))
    if not worker then return end
    local listens = call('PUBSUB', 'NUMSUB', wake .. worker)[2] > 0
    if listens and call('HEXISTS', workers, worker) == 1 and give(worker, lane) then return end
    if listens and call('PUBLISH', wake .. worker, 'work') > 0 then return end
  end
end

if total == 1 and next(added) and #ARGV[11] <= 65536 then
  hand_over(ARGV[6])
else
  for queue, count in pairs(added) do wake_idle(idle, wake, queue, count) end
end
if head then
  -- Workers sleep until the earliest due time they know: only a new head is news.
  local first = call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]
  local first_expiry = call('ZRANGE', expiry, 0, 0, 'WITHSCORES')[2]
  if (first and tonumber(first) >= head) or (first_expiry and tonumber(first_expiry) >= head) then
    call('PUBLISH', next_channel, 'due')
  end
end
return table.concat(answer)
