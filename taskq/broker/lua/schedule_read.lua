-- Read schedules and their counts.
--
-- KEYS  1 schedules  2 schedule prefix  3 leader  4 declared
-- ARGV  1 clock offset  2 what: 'ids' the ids that follow; 'page' by next fire, 3 from 4 how many;
--       'count' only counts
-- Returns {server's time (ms), how many there are, how many have a next fire, how many are listed
--       as declared, 1 when not all fit into the reply, else 0, then per schedule {id, field,
--       value, ...}, without fields when it does not exist}.
-- Called by broker/schedules.py.
local call = redis.call
--@include clock
--@include bytes
local schedules, prefix, _, declared = unpack(KEYS)
local now, wanted = clock(ARGV[1]), {}
if ARGV[2] == 'ids' then
  for i = 3, #ARGV do wanted[#wanted + 1] = ARGV[i] end
elseif ARGV[2] == 'page' then
  wanted = call('ZRANGE', schedules, ARGV[3], ARGV[3] + ARGV[4] - 1)
end
local answer = {
  now, call('ZCARD', schedules), call('ZCOUNT', schedules, '-inf', '(+inf'), call('HLEN', declared), 0,
}
local bytes = 0
for i = 1, #wanted do
  local row = redis.pcall('HGETALL', prefix .. wanted[i])
  if row.err then row = {} end
  for n = 1, #row do bytes = bytes + #row[n] end
  if bytes > MOST_BYTES and i > 1 then
    answer[5] = 1
    break
  end
  table.insert(row, 1, wanted[i])
  answer[#answer + 1] = row
end
return answer
