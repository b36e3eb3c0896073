-- Add jobs to the stream.
--
-- KEYS  1 stream
-- ARGV  per job: id, payload
-- Called by adapters/bare.py.
local call, stream = redis.call, KEYS[1]
for i = 1, #ARGV, 2 do
  call('XADD', stream, '*', 'i', ARGV[i], 'p', ARGV[i + 1])
end
