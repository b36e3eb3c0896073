-- Remove schedules; the jobs they made are kept.
--
-- KEYS  1 schedules  2 schedule prefix  3 schedule channel
-- ARGV  pairs of id and revision it must have ('' for any)
-- Returns per schedule: 1 removed, 0 it does not exist, -1 it was changed meanwhile.
-- Called by broker/schedules.py.
local call = redis.call
local schedules, prefix, channel = unpack(KEYS)
local answer, changed = {}, false
for i = 1, #ARGV, 2 do
  local key = prefix .. ARGV[i]
  local revision = redis.pcall('HGET', key, 'v')
  -- A key that is not a hash is foreign data and is removed.
  if type(revision) == 'table' then revision = ARGV[i + 1] end
  if not revision then
    call('ZREM', schedules, ARGV[i])
    answer[#answer + 1] = 0
  elseif ARGV[i + 1] ~= '' and ARGV[i + 1] ~= revision then
    answer[#answer + 1] = -1
  else
    call('DEL', key)
    call('ZREM', schedules, ARGV[i])
    answer[#answer + 1] = 1
    changed = true
  end
end
if changed then call('PUBLISH', channel, 'changed') end
return answer
