-- Store the results of a batch and acknowledge it; what was given to another worker is refused.
--
-- KEYS  1 stream  2 prefix of the jobs' keys
-- ARGV  1 how long jobs that are over are kept (ms)
--       then per job: stream id, id, lease, result
-- Returns per job 1 done, 0 refused.
-- Called by adapters/limit.py.
local call, jobs, ttl = redis.call, KEYS[2], ARGV[1]
local entries, answer = {}, {}
for i = 2, #ARGV, 4 do
  local key = jobs .. ARGV[i + 1]
  if call('HGET', key, 's') == ARGV[i + 2] then
    entries[#entries + 1] = ARGV[i]
    call('HSET', key, 's', 's', 'r', ARGV[i + 3])
    call('PEXPIRE', key, ttl)
    answer[#answer + 1] = 1
  else
    answer[#answer + 1] = 0
  end
end
if #entries > 0 then
  call('XACK', KEYS[1], 'g', unpack(entries))
  call('XDEL', KEYS[1], unpack(entries))
end
return answer
