-- Read a job: all fields except its waiting clients, and the last records of its attempts.
--
-- KEYS  1 jobs
-- ARGV  1 clock offset  2 id  3 the most records of attempts
-- Returns {server's time (ms), then field, value, ...}; the time alone when there is no such job.
-- Called by broker/jobs.py.
--
-- The number of attempts is not limited: a job retried for a year has more than can be shown.
local call = redis.call
--@include clock
local key, most = KEYS[1] .. ARGV[2], tonumber(ARGV[3])
local wanted, attempts = {}, {}
for _, name in ipairs(call('HKEYS', key)) do
  local attempt = string.match(name, '^h(%d+)$')
  if attempt then
    attempts[#attempts + 1] = tonumber(attempt)
  elseif name ~= 'n' then
    wanted[#wanted + 1] = name
  end
end
table.sort(attempts)
for i = math.max(1, #attempts - most + 1), #attempts do
  wanted[#wanted + 1] = 'h' .. string.format('%.0f', attempts[i])
end
local answer = { clock(ARGV[1]) }
if #wanted == 0 then return answer end
local values = call('HMGET', key, unpack(wanted))
for i = 1, #wanted do
  answer[#answer + 1] = wanted[i]
  answer[#answer + 1] = values[i]
end
return answer
