-- Take jobs: each is marked running, with the number of its attempt and its worker: its lease.
-- The state of one that waits is 'q' and how many attempts it had.
--
-- KEYS  1 stream  2 prefix of the jobs' keys
-- ARGV  1 worker  2 how many
-- Returns per job {stream id, id, lease, payload}.
-- Called by adapters/limit.py.
local call, jobs, worker = redis.call, KEYS[2], ARGV[1]
local reply = call('XREADGROUP', 'GROUP', 'g', worker, 'COUNT', ARGV[2], 'STREAMS', KEYS[1], '>')
if not reply then return {} end
local entries, taken = reply[1][2], {}
for i = 1, #entries do
  local id = entries[i][2][2]
  local job = call('HMGET', jobs .. id, 's', 'p')
  if string.byte(job[1] or '') == 113 then
    local lease = 'r' .. string.sub(job[1], 2) + 1 .. ' ' .. worker
    call('HSET', jobs .. id, 's', lease)
    taken[#taken + 1] = { entries[i][1], id, lease, job[2] }
  end
end
return taken
