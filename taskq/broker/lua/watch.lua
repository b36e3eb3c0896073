-- Read fields of a job, and notify a client when its progress changes.
--
-- KEYS  1 jobs
-- ARGV  1 clock offset  2 name of the client's channel  3 job id, then the fields to read
-- Returns {server's time (ms), the values of the fields}, nil for missing ones.
-- Called by broker/watching.py.
--
-- The channel is stored in the job, and goes with it.
local call = redis.call
--@include clock
--@include full
local key, channel = KEYS[1] .. ARGV[3], ARGV[2]
-- Beyond this many bytes of names the older half is dropped: live clients ask again within a second.
local MOST = 8192
local found = call('HMGET', key, 's', 'f', 'v', unpack(ARGV, 4))
if found[1] and not found[2] and not (found[3] and string.find(found[3], channel, 1, true)) then
  local names = found[3] or ''
  if #names > MOST then names = string.match(string.sub(names, -MOST / 2), ' (.*)') or '' end
  pass_when_full(key)
  call('HSET', key, 'v', names == '' and channel or (names .. ' ' .. channel))
end
local values = {}
for i = 4, #found do values[i - 3] = found[i] end
return { clock(ARGV[1]), values }
