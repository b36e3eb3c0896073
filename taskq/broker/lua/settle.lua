-- End a durable call that its own process has run.
--
-- KEYS  1 jobs  2 due  3 expiry  4 failed prefix  5 stats prefix  6 done channel prefix
-- ARGV  1 clock offset  2 job id  3 its owner: see hold.lua  4 state: s succeeded, f failed, c cancelled,
--       x expired  5 its name in the stats  6 result or error  7 ttl of the record (ms)
--       8 failed records kept per queue
-- Returns 1 done, 0 its owner no longer holds it.
-- Called by broker/durable_calls.py.
local call = redis.call
--@include clock
--@include healing
--@include lane
--@include over
--@include counter
--@include owned
local jobs, due, expiry, failed, stats, done = unpack(KEYS)
local id, state, payload, ttl = ARGV[2], ARGV[4], ARGV[6], tonumber(ARGV[7])
local now, key = clock(ARGV[1]), jobs .. id
if not owned(key, ARGV[3]) then return 0 end
local job = call('HMGET', key, 'n', 'q')
if not is_lane(job[2]) then return 0 end
healing('ZREM', due, id)
call('HDEL', key, 'w')
local queue = queue_of(job[2])
local keys = { jobs = jobs, expiry = expiry, done = done, now = now, keep = tonumber(ARGV[8]) }
end_job(keys, id, state, ttl, payload, job[1], true, state == 'f' and failed .. queue)
local minute = stats .. math.floor(now / 60000)
increase(minute, queue .. ':' .. ARGV[5], 1)
call('PEXPIRE', minute, 600000)
return 1
