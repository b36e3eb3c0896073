-- Record a worker's heartbeat; tell it what it missed and which workers are silent.
--
-- KEYS  1 workers  2 held  3 slots  4 serves  5 promoter  6 the worker's cancels  7 its description
-- ARGV  1 worker  2 its description (opaque)  3 an earlier heartbeat of its own: workers without
--       one since are silent  4 '1' when it may promote, '0' when its event loop is blocked
--       and to register it: 5 how many jobs it runs at once  6 its queues, with spaces between
-- Returns nil when it is not registered (it was declared dead), or was to be registered and its name
--       is taken, else {this heartbeat, jobs it holds, cancels, '1' when it is to promote due jobs,
--       silent workers {name, their last heartbeat, ...}}.
-- Called by broker/leases.py, once a second from the worker's own thread.
--
-- The heartbeats of all workers are numbered in one sequence, so that silent workers are found without
-- any clock. One worker promotes due jobs; when it falls silent, or cannot, the next one that sends a
-- heartbeat takes over. Works on a full server: its workers must stay alive to drain it.
local call = redis.call
--@include healing
--@include full
local workers, held, slots, serves, promoter, cancels, description = unpack(KEYS)
local worker, since = ARGV[1], tonumber(ARGV[3])
local score = healing('ZSCORE', workers, worker)
if ARGV[5] then
  if score then return false end
elseif not score or tonumber(score) < 0 then
  return false
end
pass_when_full(held)
-- A member whose number no heartbeat can have is foreign data.
local function last_beat()
  local last = call('ZRANGE', workers, -1, -1, 'WITHSCORES')
  local number = math.floor(tonumber(last[2] or '0'))
  if number < 4503599627370496 then return math.max(0, number) end
  call('ZREM', workers, last[1])
  return last_beat()
end
local beat = last_beat() + 1
call('ZADD', workers, beat, worker)
if ARGV[5] then
  healing('HSET', slots, worker, ARGV[5])
  healing('HSET', serves, worker, ARGV[6])
end
call('SET', description, ARGV[2], 'PX', 60000)

local role = healing('GET', promoter)
if role == worker and ARGV[4] == '0' then
  call('DEL', promoter)
elseif ARGV[4] == '1' then
  if role and role ~= worker then
    local heard = tonumber(call('ZSCORE', workers, role) or '-1')
    if heard < since or heard < 0 then role = nil end
  end
  if not role or role == worker then
    call('SET', promoter, worker, 'PX', 60000)
    role = worker
  end
end
local silent = call('ZRANGEBYSCORE', workers, '-inf', '(' .. math.max(0, since), 'WITHSCORES', 'LIMIT', 0, 100)
return {
  beat, tonumber(healing('HGET', held, worker) or 0) or 0, healing('SMEMBERS', cancels),
  role == worker and ARGV[4] == '1' and '1' or '0', silent,
}
