-- healing(command, key, ...): as redis.call, for keys that are taskq's own. One of another type, which
-- others put in its place, is removed, and the server's log says so: no job must wait for it. A job's
-- own key is judged with its job.
local function healing(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then
    redis.log(redis.LOG_WARNING, 'taskq removed ' .. key .. ': somebody else had put something there')
    call('DEL', key)
  end
  return call(command, key, ...)
end
