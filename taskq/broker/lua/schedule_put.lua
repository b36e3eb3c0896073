-- Store schedules: new ones, and changed ones that nothing else changed since they were read.
--
-- KEYS  1 schedules  2 schedule prefix  3 schedule channel
-- ARGV  1 clock offset
--       then per schedule: id, revision it must have ('' when it must not exist), new revision,
--       the schedule (opaque; '' keeps the stored one), next fire (ms, '' for none), why it is paused
--       ('' when it is not), '1' when that is because it cannot be computed, '1' when a new trigger
--       begins with the next fire, which then fires even if it is before the last one
-- Returns per schedule: 1 stored (or stored before by the same request), 2 stored in place of
--       foreign data, 0 it was changed meanwhile.
-- Called by broker/schedules.py.
--
-- Counters, the last fire and the jobs of earlier fires are kept.
local call = redis.call
--@include clock
local schedules, prefix, channel = unpack(KEYS)
local now = string.format('%.0f', clock(ARGV[1]))
local answer, changed = {}, false
for i = 2, #ARGV, 8 do
  local id, expected, revision = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local following, paused = ARGV[i + 4], ARGV[i + 5]
  local key = prefix .. id
  local current, stored = redis.pcall('HGET', key, 'v') or '', 1
  if type(current) == 'table' then
    call('DEL', key)
    current, stored = '', 2
  end
  if current == revision then
    answer[#answer + 1] = 1
  elseif current ~= expected then
    answer[#answer + 1] = 0
  else
    call('HSET', key, 'v', revision, 'm', now)
    if ARGV[i + 3] ~= '' then call('HSET', key, 's', ARGV[i + 3]) end
    if current == '' then call('HSET', key, 'a', now) end
    if following == '' then call('HDEL', key, 'n') else call('HSET', key, 'n', following) end
    if paused == '' then call('HDEL', key, 'p') else call('HSET', key, 'p', paused) end
    if ARGV[i + 6] == '' then call('HDEL', key, 'e') else call('HSET', key, 'e', '1') end
    local last = tonumber(call('HGET', key, 'l') or '') or 0
    if ARGV[i + 7] ~= '' and tonumber(following) < last then call('HSET', key, 'b', following) end
    call('HDEL', key, 'w')
    call('ZADD', schedules, (following == '' or paused ~= '') and '+inf' or following, id)
    answer[#answer + 1] = stored
    changed = true
  end
end
if changed then call('PUBLISH', channel, 'changed') end
return answer
