-- End a durable call that its own process has run.
--
-- KEYS  1 jobs  2 due  3 expiry  4 failed prefix  5 stats prefix  6 done channel prefix
-- ARGV  1 clock offset  2 job id  3 state: s succeeded, f failed, c cancelled, x expired  4 its name in the stats
--       5 result or error  6 ttl of the record (ms)  7 failed records kept per queue
-- Returns 1 done, 0 it is not held any more: see hold.lua.
-- Called by broker/deferrals.py.
--
-- Whoever takes the id out of the due set has the job: the process here, or a worker that promotes it.
local call = redis.call
--@include clock
--@include lane
--@include over
--@include counter
local jobs, due, expiry, failed, stats, done = unpack(KEYS)
local id, state, payload, ttl = ARGV[2], ARGV[3], ARGV[5], tonumber(ARGV[6])
local now, key = clock(ARGV[1]), jobs .. id
if call('ZREM', due, id) == 0 then return 0 end
call('ZREM', expiry, id)
local job = call('HMGET', key, 'n', 'q')
if not job[2] then return 0 end
tell(job[1], done, id, state, payload, ttl > 0)
close_job(key, state, ttl, now, state == 's' and 'r' or 'E', payload)
local queue = queue_of(job[2])
if state == 'f' and ttl > 0 then keep_failed(failed .. queue, jobs, id, now, tonumber(ARGV[7]), ttl) end
local minute = stats .. math.floor(now / 60000)
increase(minute, queue .. ':' .. ARGV[4], 1)
call('PEXPIRE', minute, 86400000)
return 1
