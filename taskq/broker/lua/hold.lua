-- Put off when the queue takes over durable calls that their own process runs.
--
-- KEYS  1 due
-- ARGV  1 clock offset  then per job: id, milliseconds from now
-- Returns one string, a character per job: '1' it is still held, '0' it is not: the queue took it over
--       because its process was silent for too long, or somebody cancelled it.
-- Called by broker/deferrals.py.
--
-- A durable call is a job that is due when its process has been silent for the length of its lease.
local call = redis.call
--@include clock
local now = clock(ARGV[1])
local answer = {}
for i = 2, #ARGV, 2 do
  local held = call('ZSCORE', KEYS[1], ARGV[i])
  if held then call('ZADD', KEYS[1], now + ARGV[i + 1], ARGV[i]) end
  answer[#answer + 1] = held and '1' or '0'
end
return table.concat(answer)
