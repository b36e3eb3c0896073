-- Add jobs: a hash for each, and its id in the stream.
--
-- KEYS  1 stream  2 prefix of the jobs' keys
-- ARGV  per job: id, payload
-- Called by adapters/limit.py.
local call, stream, jobs = redis.call, KEYS[1], KEYS[2]
for i = 1, #ARGV, 2 do
  call('HSET', jobs .. ARGV[i], 's', 'q0', 'p', ARGV[i + 1])
  call('XADD', stream, '*', 'i', ARGV[i])
end
