-- Cancel a job: a waiting job never runs, a running one is interrupted by its worker.
--
-- KEYS  1 jobs  2 due  3 expiry  4 cancels prefix  5 wake channel prefix  6 done channel prefix
-- ARGV  1 clock offset  2 job id  3 ttl of the record (ms)  4 '1' when this may have been sent before
-- Returns 1 cancelled now, 2 its worker was asked to, 0 it had ended, -1 no such job.
-- Called by broker/jobs.py.
--
-- The request is stored in the job and in the worker's set of cancels, so that it also holds when the
-- message is lost, when the worker dies, and when the attempt ends in a retry.
local call = redis.call
--@include clock
--@include healing
--@include full
--@include over
local jobs, due, expiry, cancels, wake, done = unpack(KEYS)
local id = ARGV[2]
local key = jobs .. id
local job = redis.pcall('HMGET', key, 's', 'w', 'n')
if not job[1] then return -1 end
local nowhere = job[1] == 'r' and (job[2] or '') == ''
if job[1] == 'd' or job[1] == 'q' or job[1] == 'w' or nowhere then
  healing('ZREM', due, id)
  local keys = { jobs = jobs, expiry = expiry, done = done, now = clock(ARGV[1]) }
  end_job(keys, id, 'c', tonumber(ARGV[3]), '', job[3], true)
  return 1
end
if job[1] == 'r' then
  pass_when_full(key)
  call('HSET', key, 'z', 1)
  healing('SADD', cancels .. job[2], id)
  call('PEXPIRE', cancels .. job[2], 86400000)
  call('PUBLISH', wake .. job[2], 'cancel ' .. id)
  return 2
end
if job[1] == 'c' and ARGV[4] == '1' then return 1 end
return 0
