-- Postpone the time at which the queue takes over durable calls that their own process runs.
--
-- KEYS  1 jobs  2 due
-- ARGV  1 clock offset  then per job: id, its owner, milliseconds from now
-- Returns one string, a character per job: '1' its owner still holds it, '0' not: the queue took it over
--       because its process was silent for too long, or it was cancelled.
-- Called by broker/durable_calls.py.
--
-- A durable call is a job that becomes due when its process has been silent for the length of its
-- lease. Until then its field 'w' is its owner: a token that lets one call hold, settle or release it.
local call = redis.call
--@include clock
--@include healing
--@include owned
local jobs, due = unpack(KEYS)
local now = clock(ARGV[1])
local answer = {}
for i = 2, #ARGV, 3 do
  local held = owned(jobs .. ARGV[i], ARGV[i + 1])
  if held then healing('ZADD', due, now + ARGV[i + 2], ARGV[i]) end
  answer[#answer + 1] = held and '1' or '0'
end
return table.concat(answer)
