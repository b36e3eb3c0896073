-- Store the result of one job as `limit_finish` does, and push it to who waits.
--
-- KEYS  1 stream  2 prefix of the jobs' keys
-- ARGV  1 how long it is kept (ms)  2 stream id  3 id  4 lease  5 result
-- Returns 1 done, 0 refused.
-- Called by adapters/calls.py.
local call, key = redis.call, KEYS[2] .. ARGV[3]
local job = call('HMGET', key, 's', 'n')
if job[1] ~= ARGV[4] then return 0 end
call('HSET', key, 's', 's', 'r', ARGV[5])
call('PEXPIRE', key, ARGV[1])
call('XACK', KEYS[1], 'g', ARGV[2])
call('XDEL', KEYS[1], ARGV[2])
call('PUBLISH', job[2], ARGV[5])
return 1
