-- tell(channels, prefix, id, state, payload, kept): a finished job reaches those who wait for it.
-- A large payload that is `kept` stays in the job; whoever gets the short message reads it there.
local function tell(channels, prefix, id, state, payload, kept)
  if not channels then return end
  local text = id .. '\n' .. state
  if not kept or #payload <= 65536 then text = text .. '\n' .. payload end
  for channel in string.gmatch(channels, '%S+') do
    call('PUBLISH', prefix .. channel, text)
  end
end

-- grace(ttl) -> how long the record of a finished job outlives its result (milliseconds), so that
-- a late reader is told "expired" and not "unknown".
local function grace(ttl)
  return math.max(30000, math.min(ttl, 600000))
end

-- keep_failed(list, jobs, id, now, keep, ttl): a failed job is listed; of too many the oldest go,
-- with their records. An id the caller chose may be another job's by now: that one stays.
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

-- Numbers as text, by ttl: see close_job.
local texts = {}

-- close_job(key, state, ttl, now, field, payload): the job is over and its record goes after `ttl`;
-- 0 leaves nothing. Numbers become text once a batch: the server is slow at it.
local function close_job(key, state, ttl, now, field, payload)
  if ttl == 0 then
    call('DEL', key)
    return
  end
  local text = texts[ttl]
  if not text then
    text = { string.format('%.0f', ttl), string.format('%.0f', ttl + grace(ttl)), string.format('%.0f', now) }
    texts[ttl] = text
  end
  call('HSET', key, 's', state, 'f', text[3], 'l', text[1], field, payload)
  call('PEXPIRE', key, text[2])
end

-- end_job(key, id, state, waiting, expiry, done, ttl, now, error): a job ends that no worker finishes:
-- it waits for nothing any more, those who wait for it are told, and its record is closed.
local function end_job(key, id, state, waiting, expiry, done, ttl, now, error)
  healing('ZREM', expiry, id)
  tell(waiting, done, id, state, error)
  close_job(key, state, ttl, now, 'E', error)
end
