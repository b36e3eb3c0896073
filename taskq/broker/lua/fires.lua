-- List the schedules whose fire time comes within the next moment, the earliest first.
--
-- KEYS  1 schedules  2 schedule prefix
-- ARGV  1 clock offset  2 how far ahead (ms)  3 limit
-- Returns {server's time (ms), ms until the first that is left out or -1, then per schedule
--       {id, revision, next fire (ms) or nil, last fire or '', '1' when it waits for its last run}}.
-- Called by broker/schedules.py.
--
-- What is listed and is no schedule, because somebody deleted or replaced its key, is listed no more:
-- it would stand before all others for ever.
local call = redis.call
--@include clock
local schedules, prefix = unpack(KEYS)
local now, limit = clock(ARGV[1]), tonumber(ARGV[3])
local found = call('ZRANGEBYSCORE', schedules, '-inf', now + ARGV[2], 'LIMIT', 0, limit)
local answer = { now, -1 }
for i = 1, #found do
  local row = redis.pcall('HMGET', prefix .. found[i], 'v', 'n', 'l', 'w')
  if row.err or not row[1] then
    call('ZREM', schedules, found[i])
  else
    answer[#answer + 1] = { found[i], row[1], row[2] or '', row[3] or '', row[4] or '' }
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
