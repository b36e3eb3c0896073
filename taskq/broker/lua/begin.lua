-- Record that a job begins which was held by a worker that died.
--
-- KEYS  1 jobs
-- ARGV  1 clock offset  2 worker  3 job id  4 fence
-- Returns 1, or 0 when the attempt no longer holds the job.
-- Called by broker/consumer.py, before the job runs.
--
-- When a worker with several such jobs dies, this shows which of them ran: see reap.lua.
local call = redis.call
--@include clock
--@include full
local key = KEYS[1] .. ARGV[3]
local job = call('HMGET', key, 's', 'w', 'a')
if job[1] ~= 'r' or job[2] ~= ARGV[2] or job[3] ~= ARGV[4] then return 0 end
pass_when_full(key)
call('HSET', key, 'y', ARGV[4], 'b', string.format('%.0f', clock(ARGV[1])))
return 1
