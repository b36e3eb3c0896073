-- Fire schedules: for each, make its jobs and move it to its next fire time, in one step.
--
-- KEYS  1 schedules  2 schedule prefix  3 leader  4 jobs  5 lanes prefix  6 lanes  7 due  8 expiry
--       9 idle prefix  10 wake channel prefix  11 next channel  12 stats prefix  13 skips channel
-- ARGV  1 clock offset  2 the leader's name  3 its term
--       then per schedule: id, revision, next fire it was computed from (ms), next fire after it
--       (ms, '' when there is none), time from which the plan is out of date (ms, '' never),
--       how many fires were skipped, text about them, overlap, limit, lane, expires
--       ('' or '+ms'), '1' to keep it when it has no next fire, why it is paused after this fire,
--       because the next one cannot be computed ('' when it is not), ms after which to try again when it
--       has to wait, number of jobs
--       and per job: fire time (ms), due (ms), job id, envelope
--       overlap  allow   make every job
--                skip    skip fires while `limit` of its jobs have not ended
--                wait    as skip, but the fire stays due until then
--                cancel  return the jobs to be cancelled first
-- Returns nil when the caller does not lead, else per schedule {code, fired, skipped, jobs not ended}:
--       1 done  0 its state has changed (edited, removed, or fired before)  2 too early
--       3 out of date  4 it waits  5 cancel the jobs and call again
-- Called by broker/schedules.py.
--
-- Sent twice, or by two leaders, each (schedule, fire time) still makes one job: the next fire `n` is
-- compared, and the id of the job consists of both. Jobs are written before `n` moves: if the script is
-- interrupted in between, the fire is repeated, not lost.
local call = redis.call
--@include clock
--@include healing
--@include lane
--@include job
--@include fire
--@include counter
local schedules, prefix, leader = KEYS[1], KEYS[2], KEYS[3]
local keys = {
  jobs = KEYS[4], prefix = KEYS[5], lanes = KEYS[6], due = KEYS[7], expiry = KEYS[8],
  next_channel = KEYS[11],
}
local idle, wake, stats, skips = KEYS[9], KEYS[10], KEYS[12], KEYS[13]
local record = redis.pcall('HMGET', leader, 'o', 't')
if record[1] ~= ARGV[2] or record[2] ~= ARGV[3] then return false end
local now = clock(ARGV[1])
local answer, added, counters = {}, {}, {}

local function count(lane, what, number)
  if number == 0 then return end
  local name = queue_of(lane) .. ':' .. what
  counters[name] = (counters[name] or 0) + number
end

-- Why a frame cannot be done now, or nil.
local function refusal(row, at)
  local slot = ARGV[at + 2]
  if row[1] ~= ARGV[at + 1] or row[2] ~= slot then return 0 end
  if now < tonumber(slot) then return 2 end
  if ARGV[at + 4] ~= '' and now >= tonumber(ARGV[at + 4]) then return 3 end
end

local function move_on(key, id, following, keep, broken)
  if broken ~= '' then
    call('HDEL', key, 'n')
    call('HSET', key, 'p', broken, 'e', '1')
    call('ZADD', schedules, '+inf', id)
  elseif following ~= '' then
    call('HSET', key, 'n', following)
    call('ZADD', schedules, following, id)
  elseif keep == '1' then
    call('HDEL', key, 'n')
    call('ZADD', schedules, '+inf', id)
  else
    call('DEL', key)
    call('ZREM', schedules, id)
  end
end

local function fire(at, jobs)
  local id, overlap, limit = ARGV[at], ARGV[at + 7], tonumber(ARGV[at + 8])
  local lane, expires = ARGV[at + 9], ARGV[at + 10]
  local key = prefix .. id
  local row = call('HMGET', key, 'v', 'n', 'l', 'j', 'b')
  local refused = refusal(row, at)
  if refused then return { refused, 0, 0, '' } end
  local live = overlap == 'allow' and {} or not_ended(keys.jobs, row[4])
  if overlap == 'cancel' and #live > 0 then return { 5, 0, 0, table.concat(live, ' ') } end

  local last, fired, left_out, waits = tonumber(row[3] or '') or 0, 0, 0, nil
  -- Foreign data: a time beyond the calendar, after which nothing would ever fire.
  if last > 253402214400000 then last = 0 end
  for n = 0, jobs - 1 do
    local from = at + 15 + n * 4
    local slot = tonumber(ARGV[from])
    if slot > last or ARGV[from] == row[5] then
      if overlap ~= 'allow' and #live >= limit then
        if overlap == 'wait' then
          waits = ARGV[from]
          break
        end
        left_out = left_out + 1
      else
        make_job(keys, ARGV[from + 2], ARGV[from + 3], lane, tonumber(ARGV[from + 1]), expires, now, added)
        fired = fired + 1
        if overlap ~= 'allow' then live[#live + 1] = ARGV[from + 2] end
      end
      last = math.max(last, slot)
    end
  end

  if waits and fired == 0 then
    -- Nothing moves, so that fires skipped by waiting are counted once, at the end.
    call('HSET', key, 'w', '1')
    call('ZADD', schedules, now + ARGV[at + 13], id)
    return { 4, 0, 0, table.concat(live, ' ') }
  end
  local missed = tonumber(ARGV[at + 5])
  count(lane, 'fired', fired)
  count(lane, 'skipped', missed + left_out)
  increase(key, 'c', fired)
  if missed + left_out > 0 then
    local text = missed > 0 and ARGV[at + 6] or 'overlap'
    local skip = cmsgpack.pack({ id, now, missed + left_out, text })
    increase(key, 'k', missed + left_out)
    call('HSET', key, 'x', skip)
    call('PUBLISH', skips, skip)
  end
  call('HSET', key, 'l', string.format('%.0f', last))
  if #live > 0 then call('HSET', key, 'j', table.concat(live, ' ')) else call('HDEL', key, 'j') end
  if waits then
    call('HDEL', key, 'b')
    call('HSET', key, 'n', waits, 'w', '1')
    call('ZADD', schedules, now + ARGV[at + 13], id)
    return { 4, fired, missed + left_out, table.concat(live, ' ') }
  end
  call('HDEL', key, 'w', 'b')
  move_on(key, id, ARGV[at + 3], ARGV[at + 11], ARGV[at + 12])
  return { 1, fired, missed + left_out, '' }
end

local at = 4
while at <= #ARGV do
  local jobs = tonumber(ARGV[at + 14])
  answer[#answer + 1] = fire(at, jobs)
  at = at + 15 + jobs * 4
end
for place, jobs in pairs(added) do wake_idle(idle, wake, place, jobs) end
if next(counters) then
  local minute = stats .. math.floor(now / 60000)
  for name, number in pairs(counters) do increase(minute, name, number) end
  call('PEXPIRE', minute, 600000)
end
return answer
