-- Hold, release or settle durable calls, for the process that runs them.
--
-- KEYS  1 jobs  2 due  3 expiry  4 failed prefix  5 stats prefix  6 done channel prefix  7 next channel
-- ARGV  1 clock offset  2 what:
--       'hold'     postpones the time at which the queue takes calls over
--                  then per job: id, owner, milliseconds from now
--       'release'  gives a call to the queue, which continues its attempts
--                  3 id  4 owner  5 new envelope, which counts the attempts so far
--                  6 milliseconds until it is due
--       'settle'   ends a call that its process has run
--                  3 id  4 owner  5 state: s succeeded, f failed, c cancelled, x expired
--                  6 its name in the stats  7 result or error  8 ttl of the record (ms)
--                  9 failed records kept per queue
-- Returns for 'hold' one string, a character per job: '1' its owner still holds it, '0' not; for the
--       others 1 done, 0 its owner no longer holds it.
-- Called by broker/durable_calls.py.
--
-- A durable call is a job that becomes due when its process has been silent for the length of its
-- lease. Until then its field 'w' is its owner: a token that lets one call hold, release or settle it.
-- The owner loses the job when the queue takes it over or it is cancelled.
local call = redis.call
--@include clock
--@include healing
--@include lane
--@include over
--@include counter
local jobs, due, expiry, failed, stats, done, next_channel = unpack(KEYS)
local now, what = clock(ARGV[1]), ARGV[2]

-- Also when the job waits for a retry after the queue took it over: then 'w' is the worker that ran it.
local function owned(key, owner)
  local job = redis.pcall('HMGET', key, 's', 'w')
  return job[1] == 'd' and job[2] == owner
end

if what == 'hold' then
  local answer = {}
  for i = 3, #ARGV, 3 do
    local held = owned(jobs .. ARGV[i], ARGV[i + 1])
    if held then healing('ZADD', due, now + ARGV[i + 2], ARGV[i]) end
    answer[#answer + 1] = held and '1' or '0'
  end
  return table.concat(answer)
end

local id, key = ARGV[3], jobs .. ARGV[3]
if not owned(key, ARGV[4]) then return 0 end
if what == 'release' then
  call('HSET', key, 'e', ARGV[5])
  call('HDEL', key, 'w')
  healing('ZADD', due, now + ARGV[6], id)
  call('PUBLISH', next_channel, 'due')
  return 1
end

local state, payload, ttl = ARGV[5], ARGV[7], tonumber(ARGV[8])
local job = call('HMGET', key, 'n', 'q')
if not is_lane(job[2]) then return 0 end
healing('ZREM', due, id)
call('HDEL', key, 'w')
local queue = queue_of(job[2])
local keys = { jobs = jobs, expiry = expiry, done = done, now = now, keep = tonumber(ARGV[9]) }
end_job(keys, id, state, ttl, payload, job[1], true, state == 'f' and failed .. queue)
local minute = stats .. math.floor(now / 60000)
increase(minute, queue .. ':' .. ARGV[6], 1)
call('PEXPIRE', minute, 600000)
return 1
