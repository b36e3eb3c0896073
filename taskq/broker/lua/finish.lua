-- End attempts: results, failures, retries, cancels and releases of one worker, in one call.
--
-- KEYS  1 jobs  2 lanes prefix  3 lanes  4 due  5 expiry  6 held  7 failed prefix  8 stats prefix
--       9 done channel prefix  10 next channel  11 idle prefix  12 wake channel prefix  13 cancels
-- ARGV  1 clock offset  2 worker  3 failed records kept per queue
--       then runs of similar attempts: how many, kind, lane, ttl (ms), and per attempt of the run:
--       id, stream id, attempt, payload, and for kinds F, R, B also: delay (ms), count
--       kind  S succeeded   payload result
--             F failed      payload error; count = failures with this one
--             C cancelled   payload error
--             R retry       payload how the attempt ended; after delay; count = failures so far
--             B given back  payload likewise, '' when the attempt never started; after delay;
--                           count = times released as unknown
-- Returns per attempt: 1 done, 2 done before (a repeated call), 0 refused (stale), 3 job unknown.
-- Called by broker/consumer.py.
--
-- The fence: the job must be running, with the worker and attempt number of its last take. Only with
-- an id chosen by a caller can both repeat: once nothing is left of the old job, a new job may get its
-- id, with attempt 1. A stream entry is never reused, so for such ids it must still be pending.
-- Entries are removed before anything is written, so that this works on a full server. Entries of jobs
-- given back without a delay stay where they are, for another worker.
local call = redis.call
--@include clock
--@include healing
--@include lane
--@include over
--@include counter
local jobs, prefix, lanes, due, expiry, held, failed, stats, done, next_channel, idle, wake, cancels =
  unpack(KEYS)
local now = clock(ARGV[1])
local worker = ARGV[2]
local keys = { jobs = jobs, expiry = expiry, done = done, now = now, keep = tonumber(ARGV[3]) }
local STRIDE = { S = 4, C = 4, F = 6, R = 6, B = 6 }
local answer, entries, kept, accepted, counts, woken = {}, {}, {}, {}, {}, {}
local head

-- Whether an entry is pending for this worker.
local function holds(stream, entry_id)
  local pending = redis.pcall('XPENDING', stream, 'g', entry_id, entry_id, 1, worker)
  return not pending.err and #pending > 0
end

-- Whether this worker holds the job through another entry than the given one. If it does not, and the
-- given one is not pending, another program may have deleted the stream: the attempt may still end.
local function ended_before(lane, i)
  local id = ARGV[i]
  if holds(prefix .. lane, ARGV[i + 1]) then return false end
  local stream = prefix .. (call('HGET', jobs .. id, 'q') or lane)
  local pending = redis.pcall('XPENDING', stream, 'g', '-', '+', 10000, worker)
  for n = 1, pending.err and 0 or #pending do
    local entry = call('XRANGE', stream, pending[n][1], pending[n][1])[1]
    if entry and entry[2][1] == 'i' and entry[2][2] == id then return true end
  end
  return false
end

local function verdict(job, kind, lane, i)
  if job.err or not job[1] then return 3 end
  if job[2] ~= ARGV[i + 2] or job[3] ~= worker then
    -- A job given back no longer has this worker; then this call is a repetition.
    local taken = tonumber(job[2] or '0')
    return kind == 'B' and (job[3] == '' or taken > tonumber(ARGV[i + 2])) and 2 or 0
  end
  if job[1] ~= 'r' then return 2 end
  return job[7] and ended_before(lane, i) and 2 or 1
end

-- Removes the entry of a job that is gone: only its worker can.
local function forget(lane, id)
  local stream = prefix .. lane
  if not holds(stream, id) then return end
  call('XACK', stream, 'g', id)
  call('XDEL', stream, id)
  increase(held, worker, -1)
end

local i = 4
while i <= #ARGV do
  local run = { kind = ARGV[i + 1], lane = ARGV[i + 2], ttl = tonumber(ARGV[i + 3]) }
  local kind, lane, stride = run.kind, run.lane, STRIDE[run.kind]
  local final = i + 4 + stride * (ARGV[i] - 1)
  for at = i + 4, final, stride do
    local job = redis.pcall('HMGET', jobs .. ARGV[at], 's', 'a', 'w', 'n', 'x', 'z', 'o')
    local result = verdict(job, kind, lane, at)
    answer[#answer + 1] = result
    if result == 1 then
      local n = #accepted
      accepted[n + 1], accepted[n + 2], accepted[n + 3] = run, at, job
      -- A job that was cancelled while it ran has no next attempt.
      local stays = kind == 'B' and ARGV[at + 4] == '0' and not job[6]
      collect(stays and kept or entries, lane, ARGV[at + 1])
    elseif result == 3 then
      forget(lane, ARGV[at + 1])
    end
  end
  i = final + stride
end
drop_entries(prefix, entries)
for lane, ids in pairs(kept) do kept[lane] = put_back(lanes, prefix, lane, ids, RETURNED, 'r') end

local function again(run, i)
  local id, lane, delay = ARGV[i], run.lane, tonumber(ARGV[i + 4])
  local key = jobs .. id
  if ARGV[i + 3] ~= '' then
    local record = cmsgpack.pack({ call('HGET', key, 'b'), now, worker, ARGV[i + 3] })
    call('HSET', key, run.kind == 'R' and 'c' or 'u', ARGV[i + 5], 'h' .. ARGV[i + 2], record)
  else
    -- The attempt never started: it does not count, and is not recorded otherwise.
    increase(key, 'm', 1)
    call('HSET', key, 'w', '')
  end
  if delay > 0 then
    call('HSET', key, 's', 'd', 'd', now + delay)
    healing('ZADD', due, now + delay, id)
    if not head or now + delay < head then head = now + delay end
  else
    call('HSET', key, 's', 'q')
    -- Also when the entry that was to be kept is gone with its stream.
    if run.kind == 'R' or not kept[lane][ARGV[i + 1]] then add_entry(lanes, prefix, lane, id) end
    local place = place_of(lane)
    woken[place] = (woken[place] or 0) + 1
  end
end

local STATE = { S = 's', F = 'f', C = 'c' }
local NAME = { S = 'succeeded', F = 'failed', C = 'cancelled', R = 'retried', B = 'released' }
for n = 1, #accepted, 3 do
  local run, i, job = accepted[n], accepted[n + 1], accepted[n + 2]
  local kind, payload = run.kind, ARGV[i + 3]
  if job[6] and (kind == 'R' or kind == 'B') then
    -- Cancelled while it ran: no next attempt.
    kind, payload = 'C', ''
  end
  local state = STATE[kind]
  if state then
    if kind == 'F' and run.ttl > 0 then call('HSET', jobs .. ARGV[i], 'c', ARGV[i + 5]) end
    if job[6] then healing('SREM', cancels, ARGV[i]) end
    end_job(
      keys, ARGV[i], state, run.ttl, payload, job[4], job[5], state == 'f' and failed .. queue_of(run.lane)
    )
  else
    again(run, i)
  end
  -- By kind and lane, so that no text is built for each job.
  local lanes_of = counts[kind]
  if not lanes_of then
    lanes_of = {}
    counts[kind] = lanes_of
  end
  lanes_of[run.lane] = (lanes_of[run.lane] or 0) + 1
end

if #accepted > 0 then
  increase(held, worker, -#accepted / 3)
  local minute = stats .. math.floor(now / 60000)
  for kind, lanes_of in pairs(counts) do
    for lane, count in pairs(lanes_of) do
      local sum = increase(minute, queue_of(lane) .. ':' .. NAME[kind], count)
      -- The first count of a minute. Six minutes are read, see overview.lua.
      if sum == count then call('PEXPIRE', minute, 600000) end
    end
  end
end
for place, count in pairs(woken) do wake_idle(idle, wake, place, count) end
if head and tonumber(healing('ZRANGE', due, 0, 0, 'WITHSCORES')[2]) >= head then
  call('PUBLISH', next_channel, 'due')
end
return answer
