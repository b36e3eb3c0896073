-- List the schedules that fire soon, the earliest first.
--
-- KEYS  1 schedules  2 schedule prefix
-- ARGV  1 clock offset  2 how far ahead (ms)  3 limit
-- Returns {server's time (ms), ms until the first later fire or -1, how many members were not
--       schedules, then per schedule {id, revision, next fire or '', last fire or '', '1' when it waits
--       for its last run}}.
-- Called by broker/schedules.py.
--
-- A listed member that is not a schedule, because another program deleted or replaced its key or added
-- the member, is removed: it would stay before all others for ever. A paused schedule is moved to the
-- end.
local call = redis.call
--@include clock
local schedules, prefix = unpack(KEYS)
local now, limit = clock(ARGV[1]), tonumber(ARGV[3])
local found = call('ZRANGEBYSCORE', schedules, '-inf', now + ARGV[2], 'LIMIT', 0, limit)
local answer = { now, -1, 0 }
for i = 1, #found do
  local id = found[i]
  local row = redis.pcall('HMGET', prefix .. id, 'v', 'n', 'l', 'w', 'p')
  if row.err or not row[1] or string.find(id, '[^%w_.:-]') then
    call('ZREM', schedules, id)
    answer[3] = answer[3] + 1
  elseif row[5] then
    call('ZADD', schedules, '+inf', id)
  else
    answer[#answer + 1] = { id, row[1], row[2] or '', row[3] or '', row[4] or '' }
  end
end
if #found < limit then
  local first = call('ZRANGEBYSCORE', schedules, '(' .. string.format('%.0f', now + ARGV[2]), '+inf',
    'WITHSCORES', 'LIMIT', 0, 1)[2]
  if first and first ~= 'inf' then answer[2] = math.max(0, tonumber(first) - now) end
else
  answer[2] = 0
end
return answer
