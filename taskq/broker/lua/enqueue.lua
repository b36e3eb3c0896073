-- Add jobs: due ones to their lane, later ones to the due set.
--
-- KEYS  1 jobs  2 lanes prefix  3 lanes  4 due  5 expiry  6 idle prefix  7 wake channel prefix
--       8 next channel  9 the producer's `sent`  10 workers  11 held  12 done channel prefix
--       13 malformed
-- ARGV  1 clock offset  2 the producer's batch number  3 ttl of the record of an expired job (ms)
--       then per job: id, envelope, lane, when ('' now, '+ms', '@ms'), expires (likewise),
--       origin ('' for an id made by taskq; else what tells this request from another's)
-- Returns one string, a character per job: '1' this request's job exists, '0' the id was taken.
-- Called by broker/producer.py.
--
-- Sent twice, the second does nothing: a producer sends its batches in order, one at a time, so
-- the number of its last batch tells whether this one was done. It is looked at every time, because
-- a network may deliver the first copy after the second. An id made by taskq is new by its making;
-- only ids chosen by callers are looked up.
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
local now = clock(ARGV[1])
-- Numbers become text once: the server is slow at it.
local now_text = string.format('%.0f', now)
local number = tonumber(ARGV[2])
local repeated = tonumber(call('GET', sent) or '0') >= number
local answer, opened, added = {}, {}, {}
local head

for i = 4, #ARGV, 6 do
  local id, envelope, lane, origin = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 5]
  local key = jobs .. id
  local mine = '1'
  local taken = repeated
  if origin ~= '' then
    local stored = call('HMGET', key, 'e', 'o', 'f', 'l')
    if stored[3] and now > stored[3] + stored[4] and stored[2] ~= origin then
      -- Over, and its result has outlived its ttl: only a trace of it is left.
      call('DEL', key)
    elseif stored[1] then
      taken = true
      if stored[2] ~= origin then mine = '0' end
    end
  end
  if not taken then
    local due_at = instant(now, ARGV[i + 3])
    local expires_at = instant(now, ARGV[i + 4])
    local later = due_at and due_at > now
    call('HSET', key, 'e', envelope, 's', later and 'd' or 'q', 'q', lane, 't', now_text)
    if origin ~= '' then call('HSET', key, 'o', origin) end
    if expires_at then
      call('HSET', key, 'x', expires_at)
      call('ZADD', expiry, expires_at, id)
      if not head or expires_at < head then head = expires_at end
    end
    if later then
      call('HSET', key, 'd', due_at)
      call('ZADD', due, due_at, id)
      if not head or due_at < head then head = due_at end
    else
      if not opened[lane] then
        open_lane(lanes, prefix, lane)
        opened[lane] = true
      end
      call('XADD', prefix .. lane, '*', 'i', id)
      local queue = queue_of(lane)
      added[queue] = (added[queue] or 0) + 1
    end
  end
  answer[#answer + 1] = mine
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

if #ARGV == 9 and next(added) and #ARGV[5] <= 65536 then
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
