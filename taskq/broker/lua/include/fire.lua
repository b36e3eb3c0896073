-- not_ended(jobs, ids) -> those of the jobs (ids separated by spaces) that exist and have not ended.
local function not_ended(jobs, ids)
  local left = {}
  for id in string.gmatch(ids or '', '%S+') do
    local state = redis.pcall('HGET', jobs .. id, 's')
    if state == 'q' or state == 'r' or state == 'd' or state == 'w' then left[#left + 1] = id end
  end
  return left
end

-- make_job(keys, id, envelope, lane, due_at, expires, now, added): makes the job of a fire, in its lane if
-- `due_at` has come, else in the due set. Does nothing when a job of this id exists. `keys` are {jobs,
-- lanes prefix, lanes, due, expiry, next channel}; `added` counts new jobs by place.
local function make_job(keys, id, envelope, lane, due_at, expires, now, added)
  local key = keys.jobs .. id
  if call('EXISTS', key) == 1 then return end
  local later = due_at > now
  local expires_at = instant(math.max(now, due_at), expires)
  new_job(key, '', envelope, lane, string.format('%.0f', now), 's', later and 'd' or 'q')
  set_times(keys.due, keys.expiry, key, id, later and due_at, expires_at)
  if later then
    if tonumber(call('ZRANGE', keys.due, 0, 0, 'WITHSCORES')[2]) >= due_at then
      call('PUBLISH', keys.next_channel, 'due')
    end
  else
    add_entry(keys.lanes, keys.prefix, lane, id)
    local place = place_of(lane)
    added[place] = (added[place] or 0) + 1
  end
end
