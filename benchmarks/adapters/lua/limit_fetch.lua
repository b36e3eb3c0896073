-- Take jobs: each is marked running, with its worker and the number of its attempt.
--
-- KEYS  1 stream  2 prefix of the jobs' keys
-- ARGV  1 worker  2 how many
-- Returns per job {stream id, id, attempt, payload}.
-- Called by adapters/limit.py.
local call, jobs, worker = redis.call, KEYS[2], ARGV[1]
local reply = call('XREADGROUP', 'GROUP', 'g', worker, 'COUNT', ARGV[2], 'STREAMS', KEYS[1], '>')
if not reply then return {} end
local entries, taken = reply[1][2], {}
for i = 1, #entries do
  local id = entries[i][2][2]
  local job = call('HMGET', jobs .. id, 's', 'p', 'a')
  if job[1] == 'q' then
    local attempt = (job[3] or 0) + 1
    call('HSET', jobs .. id, 's', 'r', 'a', attempt, 'w', worker)
    taken[#taken + 1] = { entries[i][1], id, attempt, job[2] }
  end
end
return taken
