-- A worker says that it lives, and learns what it missed.
--
-- KEYS  1 workers  2 held  3 the worker's cancels  4 the worker's description  5 slots
-- ARGV  1 worker  2 registers it, as one that runs so many jobs at once; '0' it is registered
--       3 its description (opaque)
-- Returns nil when it is not registered (it was declared dead), or is already and was to be (another
--       has its name), else {jobs it holds, cancels}.
-- A full server must not kill the workers that would empty it.
-- Called by broker/leases.py, once a second from the worker's own thread.
local call = redis.call
--@include full
local workers, held, cancels, description, slots = unpack(KEYS)
if (call('HEXISTS', workers, ARGV[1]) == 1) == (ARGV[2] ~= '0') then return false end
pass_when_full(workers)
call('HINCRBY', workers, ARGV[1], 1)
if ARGV[2] ~= '0' then call('HSET', slots, ARGV[1], ARGV[2]) end
call('SET', description, ARGV[3], 'PX', 60000)
return { tonumber(call('HGET', held, ARGV[1]) or 0), call('SMEMBERS', cancels) }
