-- Add one job and give it to the worker at once: marked as `limit_fetch` marks it, with a push.
--
-- KEYS  1 stream  2 prefix of the jobs' keys
-- ARGV  1 worker  2 channel of the worker  3 id  4 payload  5 channel of who waits
-- Called by adapters/calls.py.
local call, key, worker = redis.call, KEYS[2] .. ARGV[3], ARGV[1]
call('XADD', KEYS[1], '*', 'i', ARGV[3])
local reply = call('XREADGROUP', 'GROUP', 'g', worker, 'COUNT', 1, 'STREAMS', KEYS[1], '>')
local lease = 'r1 ' .. worker
call('HSET', key, 's', lease, 'p', ARGV[4], 'n', ARGV[5])
call('PUBLISH', ARGV[2], cmsgpack.pack({ reply[1][2][1][1], ARGV[3], lease, ARGV[4] }))
