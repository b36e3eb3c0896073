-- tell(channels, prefix, id, state, payload, kept): publishes the end of a job to the clients that wait.
-- A large payload that is `kept` stays in the job: a client that gets the short message reads it there.
local function tell(channels, prefix, id, state, payload, kept)
  if not channels then return end
  local text = id .. '\n' .. state
  if not kept or #payload <= 65536 then text = text .. '\n' .. payload end
  for channel in string.gmatch(channels, '%S+') do
    call('PUBLISH', prefix .. channel, text)
  end
end

-- grace(ttl) -> how long the record of an ended job outlives its result (milliseconds), so that a late
-- reader learns that the result expired, and not that the job is unknown.
local function grace(ttl)
  return math.max(30000, math.min(ttl, 600000))
end

-- keep_failed(list, jobs, id, now, keep, ttl): lists a failed job, and removes the oldest surplus ones
-- with their records. An id chosen by a caller may belong to another job by now: that record stays.
local function keep_failed(list, jobs, id, now, keep, ttl)
  healing('ZADD', list, now, id)
  local surplus = call('ZCARD', list) - keep
  if surplus > 0 then
    local oldest = call('ZPOPMIN', list, surplus)
    for i = 1, #oldest, 2 do
      if redis.pcall('HGET', jobs .. oldest[i], 's') == 'f' then call('DEL', jobs .. oldest[i]) end
    end
  end
  call('PEXPIRE', list, ttl + grace(ttl))
end

-- Numbers as text, by ttl: see end_job.
local texts = {}

-- end_job(keys, id, state, ttl, payload, waiting, expires, failed): the one place where a job ends. Waiting
-- clients are told, and its record is kept for `ttl` and its grace; 0 keeps nothing.
--   keys     {jobs, expiry, done = key prefixes and key, now, and with `failed`: keep}
--   payload  its result or error       waiting  its channels of waiting clients, or nil
--   expires  false when it is not in `expiry`  failed  the list of failed jobs that it joins, or nil
-- Numbers are formatted once a batch: the server is slow at it.
local function end_job(keys, id, state, ttl, payload, waiting, expires, failed)
  local key = keys.jobs .. id
  if expires then healing('ZREM', keys.expiry, id) end
  tell(waiting, keys.done, id, state, payload, ttl > 0)
  if ttl == 0 then
    call('DEL', key)
    return
  end
  local text = texts[ttl]
  if not text then
    text = { string.format('%.0f', ttl), string.format('%.0f', ttl + grace(ttl)), string.format('%.0f', keys.now) }
    texts[ttl] = text
  end
  call('HSET', key, 's', state, 'f', text[3], 'l', text[1], state == 's' and 'r' or 'E', payload)
  call('PEXPIRE', key, text[2])
  if failed then keep_failed(failed, keys.jobs, id, keys.now, keys.keep, ttl) end
end
