-- Store the results of a batch and acknowledge it.
--
-- KEYS  1 stream
-- ARGV  1 prefix of the results' keys  2 how long they are kept (ms)
--       then per job: stream id, job id, result
-- Called by adapters/bare.py.
local call, prefix, ttl = redis.call, ARGV[1], ARGV[2]
local entries, count = {}, 0
for i = 3, #ARGV, 3 do
  count = count + 1
  entries[count] = ARGV[i]
  call('SET', prefix .. ARGV[i + 1], ARGV[i + 2], 'PX', ttl)
end
call('XACK', KEYS[1], 'g', unpack(entries))
call('XDEL', KEYS[1], unpack(entries))
