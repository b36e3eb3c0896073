-- Give a worker up to `want` jobs: highest priority first, each marked running, with its envelope.
--
-- KEYS  1 jobs  2 lanes prefix  3 lanes  4 idle prefix  5 workers  6 held  7 expiry
--       8 done channel prefix  9 malformed
-- ARGV  1 clock offset  2 worker  3 want  4 '1' lowest priority first  5 failure ttl (ms)
--       then the queues, in the order of their turn
-- Returns nil when the worker is not registered (declared dead), else 1 when there may be more behind
--       entries that were passed over, 0 otherwise, and then per job what `taker` gives.
-- Called by broker/consumer.py.
--
-- A hundred thousand cancelled or expired jobs may stand in the way. They are passed over in pieces,
-- so that the server answers others in between.
local call = redis.call
--@include clock
--@include lane
--@include over
--@include full
--@include take
local jobs, prefix, lanes, idle, workers, held, expiry, done, malformed = unpack(KEYS)
local worker, want = ARGV[2], tonumber(ARGV[3])
if call('HEXISTS', workers, worker) == 0 then return false end
local now = clock(ARGV[1])
local MOST = 2000
local answer, dropped, taken, passed = { 0 }, {}, 0, 0
local room = true

-- Asked for by name: there may be a hundred thousand lanes of other queues.
local known = {}
for i = 6, #ARGV do
  local names = {}
  for priority = 0, 9 do names[priority + 1] = ARGV[i] .. '/' .. priority end
  local there = call('SMISMEMBER', lanes, unpack(names))
  for n = 1, 10 do known[names[n]] = there[n] == 1 end
end

local take = taker(jobs, expiry, done, malformed, worker, now, tonumber(ARGV[5]), dropped)

local function drain(lane)
  while taken < want and passed < MOST do
    local asked = want - taken
    local entries = read_lane(prefix, lane, worker, asked)
    for i = 1, #entries do
      local row = take(lane, entries[i])
      if row then
        taken = taken + 1
        answer[taken + 1] = row
        if row[8] then room = false end
      else
        passed = passed + 1
      end
    end
    if #entries < asked then return end
  end
end

local from, to, step = 9, 0, -1
if ARGV[4] == '1' then from, to, step = 0, 9, 1 end
for priority = from, to, step do
  for i = 6, #ARGV do
    local lane = ARGV[i] .. '/' .. priority
    if known[lane] and taken < want then drain(lane) end
  end
end

if passed >= MOST then answer[1] = 1 end
pass_when_full(held)
drop_entries(prefix, dropped)
if taken > 0 then call('HINCRBY', held, worker, taken) end
for i = 6, #ARGV do
  -- A worker with room waits to be woken; a full one must not swallow another's wake-up. A job that has
  -- killed workers may be one to run alone: nothing is handed to its worker until that one asks.
  if room and taken < want then
    park(idle, ARGV[i], worker)
  else
    call('SREM', idle .. ARGV[i], worker)
  end
end
return answer
