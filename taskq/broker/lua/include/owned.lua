-- owned(key, owner): whether the durable call of this key is still its process's own. One that was
-- taken over is another's, also while it waits for a retry: then 'w' is the worker that ran it.
local function owned(key, owner)
  local job = redis.pcall('HMGET', key, 's', 'w')
  return job[1] == 'd' and job[2] == owner
end
