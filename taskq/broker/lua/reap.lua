-- Take back the jobs of a worker that died or left, and return them to their lanes.
--
-- KEYS  1 jobs  2 lanes prefix  3 lanes  4 idle prefix  5 workers  6 held  7 slots  8 serves
--       9 promoter  10 failed prefix  11 done channel prefix  12 wake channel prefix
--       13 the worker's cancels  14 its description  15 expiry
-- ARGV  1 clock offset  2 worker  3 the last heartbeat that the caller saw, '' = any
--       4 '1' it died (its jobs count a crash), '0' it left  5 limit
--       6 crashes that make a job poison, if it ran alone in the last one  7 failure ttl (ms)  8 failed records kept per queue
--       9 error written to a poison job
-- Returns {jobs returned, jobs dead-lettered, '1' when some are left for another call}, or nil when
--       there was a later heartbeat (it lives).
-- Called by broker/leases.py.
--
-- The heartbeat is compared here, so only one of many observers acts, and none on old data. From then
-- on the worker is not registered: its heartbeats and fetches are refused, and so is the end of its
-- attempts, because their jobs have no worker. While some of its jobs are left, its heartbeat is -1, so
-- that any worker that looks for silent ones continues if this caller dies.
--
-- A job keeps its place: its entry stays where it is, before jobs enqueued later.
--
-- A call searches as many lanes as a few milliseconds allow; the next one continues behind them.
--
-- A job becomes poison only when it was the only job that ran in its worker: of several, any may have
-- caused the crash. For jobs with an earlier crash it is known which had begun (see begin.lua): the
-- others count no crash. Jobs with several crashes become suspects, which run in workers of their own:
-- the one that began last alone, and at most half of the others together. So each crash halves the
-- group, until the culprit is alone.
local call = redis.call
--@include clock
--@include healing
--@include lane
--@include over
local jobs, prefix, lanes, idle, workers, held, slots, serves, promoter, failed, done, wake, cancels,
  description, expiry = unpack(KEYS)
local worker, died, limit, most = ARGV[2], ARGV[4] == '1', tonumber(ARGV[5]), tonumber(ARGV[6])
local now, ttl = clock(ARGV[1]), tonumber(ARGV[7])
local score = healing('ZSCORE', workers, worker)
if ARGV[3] ~= '' and score and math.max(-1, math.floor(score)) ~= tonumber(ARGV[3]) then return false end
local keys = { jobs = jobs, expiry = expiry, done = done, now = now, keep = tonumber(ARGV[8]) }
local moved, poisoned, woken = 0, 0, {}
local suspect_from = math.max(1, most - 1)
local MOST_LANES = 400

-- What happens to the entry of a job: 'r' it is returned, 's' its job is a suspect, 'x' it is removed.
-- `together`: how many jobs ran when the worker died; `last`: when the last of them began.
local function verdict(lane, held, together, last)
  if held.fate then return held.fate end
  local id, job = held.id, held.job
  local key = jobs .. id
  if job[6] then
    end_job(keys, id, 'c', ttl, '', job[7], true)
    return 'x'
  end
  call('HSET', key, 'h' .. job[3], cmsgpack.pack({ job[4], now, worker, died and 'lost' or 'released' }))
  if held.counts then call('HSET', key, 'k', held.crashes) end
  if held.counts and together == 1 and held.crashes >= most then
    end_job(keys, id, 'f', ttl, ARGV[9], job[7], true, failed .. queue_of(lane))
    poisoned = poisoned + 1
    return 'x'
  end
  -- Without a worker, so that the end of this attempt is refused.
  call('HSET', key, 's', 'q', 'w', '')
  if not held.counts or held.crashes < suspect_from then return 'r' end
  local alone = held.began and held.began == last
  call('HSET', key, 'g', alone and 1 or math.max(1, math.floor(together / 2)))
  return 's'
end

-- A job as this worker held it; only `fate` for an entry without a job that it runs.
local function look_at(stream, entry_id)
  local entry = call('XRANGE', stream, entry_id, entry_id)[1]
  local id = entry and entry[2][1] == 'i' and entry[2][2]
  local job = id and redis.pcall('HMGET', jobs .. id, 's', 'w', 'a', 'b', 'k', 'z', 'n', 'y')
  if not job or job.err then return { fate = 'x' } end
  -- The fetch was interrupted before it marked the job: it never started.
  if job[1] == 'q' then return { fate = 'r' } end
  if job[1] ~= 'r' or job[2] ~= worker then return { fate = 'x' } end
  local before, begun = tonumber(job[5] or '0') or 0, job[8] == job[3]
  return {
    id = id, job = job, crashes = before + 1,
    counts = died and not job[6] and (before == 0 or begun), began = begun and tonumber(job[4]),
  }
end

-- Only its own queues: there may be a hundred thousand lanes of others.
local queues, pending, found, together, looked = {}, {}, 0, 0, 0
local last, twice
-- A worker of a thousand queues is reaped a few queues at a time; the remaining ones are stored.
local served, rest = healing('HGET', serves, worker) or '', nil
for at, queue in string.gmatch(served, '()(%S+)') do
  if rest then break end
  if looked >= MOST_LANES then
    rest = string.sub(served, at)
    break
  end
  queues[#queues + 1] = queue
  looked = looked + 1
  for _, kind in ipairs({ '', '/t', '/p' }) do healing('SREM', idle .. queue .. kind, worker) end
  for sign in string.gmatch(healing('HGET', lanes, queue) or '', LANES) do
    local lane = lane_of(queue, sign)
    looked = looked + 1
    local rows = found < limit and
      redis.pcall('XPENDING', prefix .. lane, 'g', '-', '+', limit - found, worker) or {}
    local held = {}
    for i = 1, rows.err and 0 or #rows do
      held[i] = look_at(prefix .. lane, rows[i][1])
      held[i].entry = rows[i][1]
      if held[i].counts then together = together + 1 end
      local began = held[i].counts and held[i].began
      if began and began == last then twice = true end
      if began and (not last or began > last) then last, twice = began, false end
    end
    found = found + #held
    pending[#pending + 1] = { lane, held }
  end
  -- Perhaps this queue is not finished.
  if found >= limit then rest = string.sub(served, at) end
end
if died and together == 0 then
  -- None is known to have begun: any may have caused the crash.
  for _, of in ipairs(pending) do
    for _, held in ipairs(of[2]) do
      held.counts = not held.fate and not held.job[6]
      if held.counts then together = together + 1 end
    end
  end
end
local more = rest ~= nil
-- A worker that is reaped in several calls held more than the job that is left for the last call,
-- unless it held one in all.
local holds = math.max(found, tonumber(healing('HGET', held, worker) or '') or 2)
if (more or (score and tonumber(score) < 0)) and holds ~= 1 then together = math.max(2, together) end
if twice then last = nil end

for _, of in ipairs(pending) do
  local lane, stream = of[1], prefix .. of[1]
  local ids = { r = {}, s = {}, x = {} }
  for _, held in ipairs(of[2]) do
    local fate = verdict(lane, held, together, last)
    ids[fate][#ids[fate] + 1] = held.entry
  end
  put_back(lanes, prefix, lane, ids.r, RETURNED, 'r')
  put_back(lanes, prefix, lane, ids.s, SUSPECTS, 's')
  if #ids.x > 0 then drop_entries(prefix, { [lane] = ids.x }) end
  if found < limit or queue_of(lane) ~= queues[#queues] then
    redis.pcall('XGROUP', 'DELCONSUMER', stream, 'g', worker)
  end
  local back = #ids.r + #ids.s
  if back > 0 then woken[place_of(lane)] = (woken[place_of(lane)] or 0) + back end
  moved = moved + back
end

-- It may have used up a wake-up for a job that it did not fetch.
for i = 1, died and #queues or 0 do
  for _, kind in ipairs({ '', '/t', '/p' }) do
    woken[queues[i] .. kind] = (woken[queues[i] .. kind] or 0) + 1
  end
end
if more then
  call('ZADD', workers, -1, worker)
  healing('HSET', serves, worker, rest)
  healing('HSET', held, worker, found > 0 and holds + 1 or holds)
else
  call('ZREM', workers, worker)
  healing('HDEL', serves, worker)
  call('DEL', cancels, description)
  if healing('GET', promoter) == worker then call('DEL', promoter) end
  healing('HDEL', held, worker)
end
healing('HDEL', slots, worker)
for place, count in pairs(woken) do wake_idle(idle, wake, place, count) end
return { moved, poisoned, more and '1' or '0' }
