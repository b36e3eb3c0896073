-- read_lane(prefix, lane, worker, count) -> up to `count` new entries, now pending for `worker`.
local function read_lane(prefix, lane, worker, count)
  local arguments = { 'XREADGROUP', 'GROUP', 'g', worker, 'COUNT', count, 'STREAMS', prefix .. lane, '>' }
  local reply = redis.pcall(unpack(arguments))
  if reply and reply.err then
    -- The stream was deleted behind our back, or replaced: make its group again.
    healing('XLEN', prefix .. lane)
    redis.pcall('XGROUP', 'CREATE', prefix .. lane, 'g', '0', 'MKSTREAM')
    reply = call(unpack(arguments))
  end
  return reply and reply[1][2] or {}
end

-- countable(text) -> whether it is absent or a number that is exact in a script.
local function countable(text)
  local number = tonumber(text)
  return not text or (number ~= nil and number >= 0 and number < 9007199254740992)
end

-- taker(...) -> take(lane, entry): mark the job behind an entry running under `worker`, and give
-- {id, lane, stream id, fence, envelope, enqueued, and where there were any: failures, crashes,
-- unknown, takes that never started}; nil when there is nothing to run behind it, and then the entry is
-- in `dropped`.
--
-- The fence counts takes and never goes back, so worker and fence together name one of them for ever.
--
-- A stream entry is a hint to look at a job. The job's state decides: one that is not `queued` any
-- more (cancelled, expired, fetched through another entry) is dropped from the stream. So is one of
-- another lane: its id was given to a new job. What others wrote there must not stop the rest: an
-- entry or a job that is none is kept aside, in `malformed`.
local function taker(jobs, expiry, done, malformed, worker, now, ttl, dropped)
  local began = string.format('%.0f', now)
  return function(lane, entry)
    local entry_id, id = entry[1], entry[2] and entry[2][1] == 'i' and entry[2][2]
    local key = id and jobs .. id
    local job = key and redis.pcall('HMGET', key, 's', 'e', 'a', 't', 'x', 'q')
    if not job or job.err or not (countable(job[3]) and countable(job[5])) then
      healing('LPUSH', malformed, cmsgpack.pack({ lane, entry_id, entry[2] or {} }))
      call('LTRIM', malformed, 0, 99)
      call('PEXPIRE', malformed, 604800000)
      collect(dropped, lane, entry_id)
      return nil
    end
    if job[1] ~= 'q' or job[6] ~= lane then
      collect(dropped, lane, entry_id)
      return nil
    end
    if job[5] and tonumber(job[5]) <= now then
      end_job(key, id, 'x', call('HGET', key, 'n'), expiry, done, ttl, now, '')
      collect(dropped, lane, entry_id)
      return nil
    end
    local fence = job[3] and string.format('%.0f', job[3] + 1) or '1'
    call('HSET', key, 's', 'r', 'a', fence, 'w', worker, 'b', began)
    local row = { id, lane, entry_id, fence, job[2], job[4] }
    if job[3] then
      -- It ran before: what it has behind it.
      local past = call('HMGET', key, 'c', 'k', 'u', 'm')
      if past[1] or past[2] or past[3] or past[4] then
        row[7], row[8], row[9], row[10] = past[1], past[2], past[3], past[4]
      end
    end
    return row
  end
end
