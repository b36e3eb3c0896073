-- Take back the jobs of a worker that died or left, and give them to the others.
--
-- KEYS  1 jobs  2 lanes prefix  3 lanes  4 idle prefix  5 workers  6 held  7 dead  8 failed prefix
--       9 done channel prefix  10 wake channel prefix  11 the worker's cancels  12 its description
--       13 expiry  14 slots
-- ARGV  1 clock offset  2 worker  3 the beat counter it was judged by, '' = whatever it is now
--       4 '1' it died (its jobs count a crash), '0' it left  5 limit per lane
--       6 crashes that make a job poison, the last of them alone  7 failure ttl (ms)  8 failed records kept per queue
--       9 error written to a poison job
-- Returns {jobs given to others, jobs dead-lettered, '1' when some are left for another call}, or nil
--       when its beat moved on (it lives).
-- Called by broker/leases.py.
--
-- The counter is compared here, so of many observers one acts, and none on an old look. From then
-- on the worker is not registered: its beats and fetches are answered "you are dead" and its
-- finishes meet another attempt number.
--
-- A job is poison only when it was the one job its worker held: of many, any may be the guilty one,
-- and most of them had not even started. Workers run such a suspect alone, so its next crash decides.
local call = redis.call
--@include clock
--@include lane
--@include over
local jobs, prefix, lanes, idle, workers, held, dead, failed, done, wake, cancels, description, expiry, slots =
  unpack(KEYS)
local worker, died, limit = ARGV[2], ARGV[4] == '1', tonumber(ARGV[5])
local now, ttl = clock(ARGV[1]), tonumber(ARGV[7])
local counter = call('HGET', workers, worker)
if ARGV[3] ~= '' and counter and counter ~= ARGV[3] then return false end
call('HDEL', workers, worker)
call('HDEL', held, worker)
call('HDEL', slots, worker)
call('DEL', description)

local moved, poisoned, more, woken = 0, 0, '0', {}

local function bury(key, id, lane, waiting)
  end_job(key, id, 'f', waiting, expiry, done, ttl, now, ARGV[9])
  if ttl > 0 then keep_failed(failed .. queue_of(lane), jobs, id, now, tonumber(ARGV[8]), ttl) end
  poisoned = poisoned + 1
end

local function queue(lane, id)
  add_entry(lanes, prefix, lane, id)
  woken[queue_of(lane)] = (woken[queue_of(lane)] or 0) + 1
  moved = moved + 1
end

local function give(key, id, lane)
  -- Without its worker: what that one still says of the attempt is refused.
  call('HSET', key, 's', 'q', 'w', '')
  queue(lane, id)
end

local function take_back(lane, id, alone)
  local key = jobs .. id
  local job = redis.pcall('HMGET', key, 's', 'w', 'a', 'b', 'k', 'z', 'n')
  if job.err then return end
  -- The fetch that was to mark it was broken off: it never started.
  if job[1] == 'q' then return queue(lane, id) end
  if job[1] ~= 'r' or job[2] ~= worker then return end
  if job[6] then return end_job(key, id, 'c', job[7], expiry, done, ttl, now, '') end
  local ended = died and 'lost' or 'released'
  call('HSET', key, 'h' .. job[3], cmsgpack.pack({ job[4], now, worker, ended }))
  if not died then return give(key, id, lane) end
  local crashes = (tonumber(job[5]) or 0) + 1
  call('HSET', key, 'k', crashes)
  if alone and crashes >= tonumber(ARGV[6]) then return bury(key, id, lane, job[7]) end
  give(key, id, lane)
end

-- Of a worker that is taken apart in several calls the last job is not the only one.
local holding, holds = {}, call('SISMEMBER', dead, worker)
for _, lane in ipairs(call('SMEMBERS', lanes)) do
  call('SREM', idle .. queue_of(lane), worker)
  local pending = redis.pcall('XPENDING', prefix .. lane, 'g', '-', '+', limit, worker)
  if not pending.err then
    holding[lane] = pending
    holds = holds + #pending
  end
end

for lane, pending in pairs(holding) do
  local stream, ids, found = prefix .. lane, {}, {}
  for i = 1, #pending do ids[i] = pending[i][1] end
  for i = 1, #ids do found[i] = call('XRANGE', stream, ids[i], ids[i])[1] or false end
  if #ids > 0 then
    call('XACK', stream, 'g', unpack(ids))
    call('XDEL', stream, unpack(ids))
  end
  for i = 1, #ids do
    if found[i] and found[i][2][1] == 'i' then take_back(lane, found[i][2][2], holds == 1) end
  end
  if #ids >= limit then more = '1' else call('XGROUP', 'DELCONSUMER', stream, 'g', worker) end
end

if more == '1' then
  -- Whoever comes next goes on, also when this caller dies now.
  call('SADD', dead, worker)
else
  call('SREM', dead, worker)
  call('DEL', cancels)
end
for queue, count in pairs(woken) do wake_idle(idle, wake, queue, count) end
return { moved, poisoned, more }
