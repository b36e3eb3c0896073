-- new_job(key, channel, envelope, lane, created, ...): the one place where the hash of a job is made, with
-- the fields of its state. `channel`: of a client that already waits for the result, '' without one.
local function new_job(key, channel, envelope, lane, created, ...)
  if channel == '' then return call('HSET', key, 'e', envelope, 'q', lane, 't', created, ...) end
  call('HSET', key, 'n', channel, 'e', envelope, 'q', lane, 't', created, ...)
end

-- set_times(due, expiry, key, id, due_at, expires_at): when a new job is due, and when it expires.
local function set_times(due, expiry, key, id, due_at, expires_at)
  if expires_at then
    call('HSET', key, 'x', expires_at)
    healing('ZADD', expiry, expires_at, id)
  end
  if due_at then
    call('HSET', key, 'd', due_at)
    healing('ZADD', due, due_at, id)
  end
end
