-- Ask how jobs ended; be notified when the others end.
--
-- KEYS  1 jobs
-- ARGV  1 clock offset  2 name of the client's channel, '' for no notification  then job ids
-- Returns per job {state, payload}: payload is the result or error of a finished one, '' otherwise;
--       state '' = no such job, 'g' = ended and its result is gone. Only the first ones when all do not
--       fit into a reply: ask again for the rest.
-- Called by broker/waiting.py.
local call = redis.call
--@include clock
--@include full
--@include bytes
local now, channel, answer, bytes = clock(ARGV[1]), ARGV[2], {}, 0
-- Beyond this many bytes of names the older half is dropped: most of those clients are gone, and the
-- others ask again by themselves.
local MOST = 32768
for i = 3, #ARGV do
  local key = KEYS[1] .. ARGV[i]
  -- Foreign data counts as an unknown job, and does not affect the others.
  local job = redis.pcall('HMGET', key, 's', 'f', 'l', 'r', 'E', 'n')
  if not job[1] then
    answer[i - 2] = { '', '' }
  elseif job[2] then
    if now > (tonumber(job[2]) or 0) + (tonumber(job[3]) or 0) then
      answer[i - 2] = { 'g', '' }
    else
      local payload = job[4] or job[5] or ''
      bytes = bytes + #payload
      if bytes > MOST_BYTES and i > 3 then break end
      answer[i - 2] = { job[1], payload }
    end
  else
    if channel ~= '' and not (job[6] and string.find(job[6], channel, 1, true)) then
      pass_when_full(key)
      local names = job[6] or ''
      if #names > MOST then names = string.match(names, ' (.*)', MOST / 2) or '' end
      call('HSET', key, 'n', names == '' and channel or (names .. ' ' .. channel))
    end
    answer[i - 2] = { job[1], '' }
  end
end
return answer
