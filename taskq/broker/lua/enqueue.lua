-- Enqueue jobs: due ones to their lane, later ones to the due set.
--
-- KEYS  1 jobs  2 lanes prefix  3 lanes  4 due  5 expiry  6 idle prefix  7 wake channel prefix
--       8 next channel  9 the producer's `sent`  10 slots  11 held  12 done channel prefix
--       13 malformed
-- ARGV  1 clock offset  2 the producer's batch number  3 ttl of the record of an expired job (ms)
--       4 number of the batch that must have been done before this one, 0 = none
--       5 how long this number is remembered (ms): longer than its producer may send it again
--       then runs of similar jobs: how many, lane, when ('' now, '+ms', '@ms'), expires (likewise),
--       origin ('' for ids made by taskq; else it identifies this request), channel of a client that
--       already waits for the result ('' none), owner of durable calls ('' for other jobs: see
--       durable.lua), and per job of the run: id, envelope
-- Returns one string, a character per job: '1' this request's job exists, '0' the id was taken, '!'
--       its key is not a job; nil, with nothing done, when the batch before this one was not done.
-- Called by broker/producer.py.
--
-- A repetition does nothing: a producer numbers its batches and this script applies them in order, so
-- the number of the last one shows whether this one was applied. It is checked every time, because a
-- network may deliver the first copy after the second. An id made by taskq is unique; only ids chosen
-- by callers are looked up.
--
-- An error concerns one job only: a failure in the middle would leave the first jobs, and a repetition
-- would enqueue them twice.
--
-- A single job is handed over to an idle worker at once, in the push that would wake it, which saves
-- the worker a fetch. A worker that cannot be pushed to is skipped; one that dies before the push
-- arrives is reaped as if it had fetched the job. A worker that held nothing and has another slot
-- stays idle, since the queue holds nothing that it has not seen. Server and worker both count what it
-- holds, so both know whether it is still idle.
local call = redis.call
--@include clock
--@include healing
--@include lane
--@include job
--@include over
--@include take
local jobs, prefix, lanes, due, expiry, idle, wake, next_channel, sent, slots, held, done, malformed =
  unpack(KEYS)
local number = tonumber(ARGV[2])
local last = tonumber(healing('GET', sent) or '0') or 0
if last < tonumber(ARGV[4]) then return false end
local repeated = last >= number
local now = clock(ARGV[1])
-- Formatted once: converting numbers to text is slow.
local now_text = string.format('%.0f', now)
local answer, added, total, queued = {}, {}, 0, 0
local head

-- For an id chosen by a caller: whether a job has it, and whether this request made that job.
local function looked_up(key, origin)
  local stored = call('HMGET', key, 'e', 'o', 'f', 'l')
  local over = stored[3] and now > (tonumber(stored[3]) or 0) + (tonumber(stored[4]) or 0)
  if over and stored[2] ~= origin then
    -- It has ended and its result has expired: only its record is left.
    call('DEL', key)
    return repeated, true
  end
  if not stored[1] then return repeated, true end
  return true, stored[2] == origin
end

local function nearer(at)
  if not head or at < head then head = at end
end

-- The fields that only some jobs have.
local function add_extras(key, id, due_at, expires_at, origin, owner)
  if origin ~= '' then call('HSET', key, 'o', origin) end
  if due_at and owner ~= '' then call('HSET', key, 'w', owner) end
  set_times(due, expiry, key, id, due_at, expires_at)
  if expires_at then nearer(expires_at) end
  if due_at then nearer(due_at) end
end

-- A worker that waits for a job of this place, and how many jobs it runs at once; nil without one.
local function waiting(place)
  while true do
    local worker = healing('SRANDMEMBER', idle .. place)
    if not worker then return end
    local most = healing('HGET', slots, worker)
    if most and call('PUBSUB', 'NUMSUB', wake .. worker)[2] > 0 then return worker, most end
    call('SREM', idle .. place, worker)
    -- A worker that was declared dead learns it by its next fetch.
    if not most then call('PUBLISH', wake .. worker, 'work') end
  end
end

-- Adds the job to its lane and takes the first job of the lane for this worker: the new one, or one
-- that waited before it. Returns nil when the first entry is stale.
local function given(worker, lane, id, key, envelope, channel)
  local own = add_entry(lanes, prefix, lane, id)
  local entry = read_lane(prefix, lane, worker, 1)[1]
  if entry and entry[1] == own then
    new_job(key, channel, envelope, lane, now_text, running(worker, '1', now_text))
    return { id, lane, own, '1', envelope, now_text }
  end
  new_job(key, channel, envelope, lane, now_text, 's', 'q')
  local dropped, keys = {}, { jobs = jobs, expiry = expiry, done = done, now = now }
  local row = entry and taker(keys, malformed, worker, tonumber(ARGV[3]), dropped)(lane, entry)
  drop_entries(prefix, dropped)
  return row
end

-- Adds the job and hands a job to a waiting worker; false, with nothing done, when none waits.
local function handed_over(lane, id, key, envelope, channel)
  local place = place_of(lane)
  local worker, most = waiting(place)
  if not worker then return false end
  local row = given(worker, lane, id, key, envelope, channel)
  if not row then
    call('PUBLISH', wake .. worker, 'work')
    return true
  end
  local holds = redis.pcall('HINCRBY', held, worker, 1)
  if holds ~= 1 or most == '1' then call('SREM', idle .. place, worker) end
  call('PUBLISH', wake .. worker, 'job ' .. cmsgpack.pack(row))
  return true
end

-- Adds the jobs of one run from ARGV[first] to ARGV[final]; `shared` is where their shared arguments
-- begin. `alone`: it is the only job of this call.
local function add_jobs(shared, first, final, alone, due_at, expires_at)
  local lane, origin, channel, owner = ARGV[shared + 1], ARGV[shared + 4], ARGV[shared + 5], ARGV[shared + 6]
  local state = due_at and 'd' or 'q'
  local plain = not due_at and not expires_at and origin == ''
  local mine = true
  for i = first, final, 2 do
    local id, key, taken = ARGV[i], jobs .. ARGV[i], repeated
    if origin ~= '' then taken, mine = looked_up(key, origin) end
    if not taken then
      if not (alone and handed_over(lane, id, key, ARGV[i + 1], channel)) then
        new_job(key, channel, ARGV[i + 1], lane, now_text, 's', state)
        if not due_at then
          add_entry(lanes, prefix, lane, id)
          queued = queued + 1
        end
      end
      if not plain then add_extras(key, id, due_at, expires_at, origin, owner) end
    end
    total = total + 1
    answer[total] = mine and '1' or '0'
  end
end

-- Adds a whole run, also when the key of one of its jobs is not a job.
local function add_run(shared, first, final, alone, ...)
  queued = 0
  local before = total
  while total < before + (final - first + 1) / 2 do
    local ok, why = pcall(add_jobs, shared, first + 2 * (total - before), final, alone, ...)
    if not ok then
      if not string.find(type(why) == 'table' and why.err or why, 'WRONGTYPE', 1, true) then
        -- The server takes no writes: try again, to raise its own error.
        return add_jobs(shared, first + 2 * (total - before), final, alone, ...)
      end
      total = total + 1
      answer[total] = '!'
    end
  end
  -- For a single job no worker waits any more.
  if queued > 0 and not alone then
    local place = place_of(ARGV[shared + 1])
    added[place] = (added[place] or 0) + queued
  end
end

local first = 6
while first <= #ARGV do
  local from = first + 7
  local final = from - 1 + 2 * ARGV[first]
  local due_at, expires_at = instant(now, ARGV[first + 2]), instant(now, ARGV[first + 3])
  if due_at and due_at <= now then due_at = nil end
  local fresh = not due_at and not (expires_at and expires_at <= now)
  local alone = fresh and #ARGV == 14 and #ARGV[14] <= 65536
  add_run(first, from, final, alone, due_at, expires_at)
  first = final + 1
end

-- A repetition writes nothing, so that a full server answers it too.
if not repeated then call('SET', sent, number, 'PX', ARGV[5]) end
for place, count in pairs(added) do wake_idle(idle, wake, place, count) end
if head then
  -- Workers sleep until the earliest due time they know, so only an earlier one is announced.
  local first = healing('ZRANGE', due, 0, 0, 'WITHSCORES')[2]
  local first_expiry = healing('ZRANGE', expiry, 0, 0, 'WITHSCORES')[2]
  if (first and tonumber(first) >= head) or (first_expiry and tonumber(first_expiry) >= head) then
    call('PUBLISH', next_channel, 'due')
  end
end
return table.concat(answer)
