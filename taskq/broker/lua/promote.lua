-- Move due jobs to their lanes, and end waiting jobs whose `expires` has passed.
--
-- KEYS  1 jobs  2 lanes prefix  3 lanes  4 due  5 expiry  6 idle prefix  7 wake channel prefix
--       8 done channel prefix
-- ARGV  1 clock offset  2 limit  3 ttl of the record of an expired job (ms)
-- Returns {moved, milliseconds until the next is due or expires, or -1}.
-- Called by broker/broker.py. Any worker may call it at any time: ZREM decides which moves a job.
local call = redis.call
--@include clock
--@include healing
--@include lane
--@include over
local jobs, prefix, lanes, due, expiry, idle, wake, done = unpack(KEYS)
local now, limit = clock(ARGV[1]), tonumber(ARGV[2])
local keys = { jobs = jobs, expiry = expiry, done = done, now = now }
local added, moved = {}, 0

local late = healing('ZRANGEBYSCORE', expiry, '-inf', now, 'LIMIT', 0, limit)
for _, id in ipairs(late) do
  call('ZREM', expiry, id)
  local job = redis.pcall('HMGET', jobs .. id, 's', 'n')
  -- A running job has started in time. The stream entry of a queued one stays, and is dropped by
  -- the next fetch that reads it, or by the sweep.
  if job[1] == 'd' or job[1] == 'q' then
    healing('ZREM', due, id)
    end_job(keys, id, 'x', tonumber(ARGV[3]), '', job[2], true)
  end
end

local ready = healing('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, limit)
if #ready > 0 then call('ZREM', due, unpack(ready)) end
for _, id in ipairs(ready) do
  local key = jobs .. id
  local job = redis.pcall('HMGET', key, 's', 'q')
  if job[1] == 'd' and is_lane(job[2]) then
    call('HSET', key, 's', 'q')
    add_entry(lanes, prefix, job[2], id)
    local place = place_of(job[2])
    added[place] = (added[place] or 0) + 1
    moved = moved + 1
  end
end
for place, count in pairs(added) do wake_idle(idle, wake, place, count) end

local first = call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]
local first_expiry = call('ZRANGE', expiry, 0, 0, 'WITHSCORES')[2]
local soonest = tonumber(first or first_expiry)
if not soonest then return { moved, -1 } end
if first_expiry then soonest = math.min(soonest, tonumber(first_expiry)) end
return { moved, math.max(0, soonest - now) }
