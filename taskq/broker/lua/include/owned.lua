-- owned(key, owner): whether `owner` still holds the durable call of this key. A call that the queue
-- took over belongs to a worker, also while it waits for a retry: then 'w' is that worker.
local function owned(key, owner)
  local job = redis.pcall('HMGET', key, 's', 'w')
  return job[1] == 'd' and job[2] == owner
end
