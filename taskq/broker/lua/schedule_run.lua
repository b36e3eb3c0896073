-- Run a schedule now, once; its next fire stays.
--
-- KEYS  1 schedules  2 schedule prefix  3 jobs  4 lanes prefix  5 lanes  6 due  7 expiry
--       8 idle prefix  9 wake channel prefix  10 next channel
-- ARGV  1 clock offset  2 schedule  3 revision  4 job id  5 envelope  6 lane  7 expires ('' or '+ms')
-- Returns 1 made (or made before by the same request), 0 the schedule was changed meanwhile.
-- Called by broker/schedules.py.
--
-- The job counts as a run of the schedule: the next fire checks whether it has ended.
local call = redis.call
--@include clock
--@include healing
--@include lane
--@include job
--@include fire
local prefix = KEYS[2]
local keys = {
  jobs = KEYS[3], prefix = KEYS[4], lanes = KEYS[5], due = KEYS[6], expiry = KEYS[7],
  next_channel = KEYS[10],
}
local key, id = prefix .. ARGV[2], ARGV[4]
if call('EXISTS', keys.jobs .. id) == 1 then return 1 end
local row = call('HMGET', key, 'v', 'j')
if row[1] ~= ARGV[3] then return 0 end
local now, added = clock(ARGV[1]), {}
make_job(keys, id, ARGV[5], ARGV[6], now, ARGV[7], now, added)
local live = not_ended(keys.jobs, row[2])
live[#live + 1] = id
call('HSET', key, 'j', table.concat(live, ' '))
for place, jobs in pairs(added) do wake_idle(KEYS[8], KEYS[9], place, jobs) end
return 1
