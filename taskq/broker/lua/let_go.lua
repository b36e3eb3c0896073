-- Release a durable call to the queue: its process ends, and the queue continues its attempts.
--
-- KEYS  1 jobs  2 due  3 next channel
-- ARGV  1 clock offset  2 job id  3 its owner: see hold.lua  4 envelope  5 milliseconds until it is due
-- Returns 1 done, 0 its owner no longer holds it.
-- Called by broker/durable_calls.py.
--
-- The envelope is replaced because it counts the attempts that the process made.
local call = redis.call
--@include clock
--@include healing
--@include owned
local jobs, due, next_channel = unpack(KEYS)
local key = jobs .. ARGV[2]
if not owned(key, ARGV[3]) then return 0 end
call('HSET', key, 'e', ARGV[4])
call('HDEL', key, 'w')
healing('ZADD', due, clock(ARGV[1]) + ARGV[5], ARGV[2])
call('PUBLISH', next_channel, 'due')
return 1
