-- healing(command, key, ...): as redis.call, for taskq's own keys. If another program replaced the key
-- by one of another type, that is removed and logged by the server, so that no job has to wait. The
-- hash of a job is not healed here: its job is treated as malformed.
local function healing(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then
    redis.log(redis.LOG_WARNING, 'taskq removed ' .. key .. ': another program had replaced it')
    call('DEL', key)
  end
  return call(command, key, ...)
end
