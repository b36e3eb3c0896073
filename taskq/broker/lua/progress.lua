-- Store the progress of running attempts.
--
-- KEYS  1 jobs  2 watch channel prefix
-- ARGV  1 worker  then per report: job id, attempt, progress (opaque)
-- Returns per report 1, or 0 when the attempt no longer holds the job.
-- Called by broker/consumer.py.
--
-- Notifies the clients that watch the job.
local call = redis.call
--@include full
local worker, answer = ARGV[1], {}
for i = 2, #ARGV, 3 do
  local key = KEYS[1] .. ARGV[i]
  local job = call('HMGET', key, 's', 'a', 'w', 'v')
  if job[1] == 'r' and job[2] == ARGV[i + 1] and job[3] == worker then
    pass_when_full(key)
    call('HSET', key, 'p', ARGV[i + 2])
    for channel in string.gmatch(job[4] or '', '%S+') do call('PUBLISH', KEYS[2] .. channel, ARGV[i]) end
    answer[#answer + 1] = 1
  else
    answer[#answer + 1] = 0
  end
end
return answer
