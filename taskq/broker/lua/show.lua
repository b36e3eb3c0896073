-- Store what a process reports about its deferred calls, for a minute.
--
-- KEYS  1 deferring
-- ARGV  1 clock offset  2 process  3 its record (opaque), '' to remove it
-- Returns the number of processes with a record.
-- Called by broker/durable_calls.py.
--
-- Each record starts with the time it was written, so that records of dead processes are removed.
local call = redis.call
--@include clock
local key, now = KEYS[1], clock(ARGV[1])
if ARGV[3] == '' then
  call('HDEL', key, ARGV[2])
else
  call('HSET', key, ARGV[2], string.format('%.0f', now) .. ' ' .. ARGV[3])
  call('PEXPIRE', key, 60000)
end
local known = call('HGETALL', key)
for i = 1, #known, 2 do
  local written = tonumber(string.match(known[i + 1], '^%d+') or '') or 0
  if written < now - 60000 then call('HDEL', key, known[i]) end
end
return #known / 2
