-- Give a durable call to the queue: its process ends, and it goes on where that was.
--
-- KEYS  1 jobs  2 due  3 next channel
-- ARGV  1 clock offset  2 job id  3 envelope  4 milliseconds until it is due
-- Returns 1 done, 0 it is not held any more: see hold.lua.
-- Called by broker/deferrals.py.
--
-- The envelope is written anew because it counts the attempts that the process made.
local call = redis.call
--@include clock
local jobs, due, next_channel = unpack(KEYS)
if not call('ZSCORE', due, ARGV[2]) then return 0 end
call('HSET', jobs .. ARGV[2], 'e', ARGV[3])
call('ZADD', due, clock(ARGV[1]) + ARGV[4], ARGV[2])
call('PUBLISH', next_channel, 'due')
return 1
