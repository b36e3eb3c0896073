-- runs_on(key): whether the job of this key has not ended. One that is gone has, and so has what is
-- not a job.
local function runs_on(key)
  local state = redis.pcall('HGET', key, 's')
  return state == 'q' or state == 'r' or state == 'd' or state == 'w'
end

-- not_ended(jobs, ids) -> those of the jobs (ids with spaces between) that have not ended.
local function not_ended(jobs, ids)
  local left = {}
  for id in string.gmatch(ids or '', '%S+') do
    if runs_on(jobs .. id) then left[#left + 1] = id end
  end
  return left
end

-- make_job(keys, id, envelope, lane, due_at, expires, now, added): a job that is due at `due_at`, in
-- its lane when that has come, else in the due set; false when a job of this id exists. `keys` are
-- {jobs, lanes prefix, lanes, due, expiry, next channel}; `added` counts new jobs by queue.
local function make_job(keys, id, envelope, lane, due_at, expires, now, added)
  local key = keys.jobs .. id
  if call('EXISTS', key) == 1 then return false end
  local later = due_at > now
  call('HSET', key, 'e', envelope, 's', later and 'd' or 'q', 'q', lane, 't', string.format('%.0f', now))
  local expires_at = instant(math.max(now, due_at), expires)
  if expires_at then
    call('HSET', key, 'x', string.format('%.0f', expires_at))
    healing('ZADD', keys.expiry, expires_at, id)
  end
  if later then
    call('HSET', key, 'd', string.format('%.0f', due_at))
    healing('ZADD', keys.due, due_at, id)
    if tonumber(call('ZRANGE', keys.due, 0, 0, 'WITHSCORES')[2]) >= due_at then
      call('PUBLISH', keys.next_channel, 'due')
    end
  else
    add_entry(keys.lanes, keys.prefix, lane, id)
    local place = place_of(lane)
    added[place] = (added[place] or 0) + 1
  end
  return true
end
