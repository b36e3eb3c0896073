-- read_lane(prefix, lane, worker, count) -> up to `count` new entries, now pending for `worker`.
local function read_lane(prefix, lane, worker, count)
  local arguments = { 'XREADGROUP', 'GROUP', 'g', worker, 'COUNT', count, 'STREAMS', prefix .. lane, '>' }
  local reply = redis.pcall(unpack(arguments))
  if reply and reply.err then
    -- Another program deleted or replaced the stream: make its group again.
    healing('XLEN', prefix .. lane)
    redis.pcall('XGROUP', 'CREATE', prefix .. lane, 'g', '0', 'MKSTREAM')
    reply = call(unpack(arguments))
  end
  return reply and reply[1][2] or {}
end

-- countable(text) -> whether it is absent, or a number that Lua represents exactly.
local function countable(text)
  local number = tonumber(text)
  return not text or (number ~= nil and number >= 0 and number < 9007199254740992)
end

-- running(worker, fence, began) -> the fields that mark a job running: the one place that names them.
local function running(worker, fence, began)
  return 's', 'r', 'a', fence, 'w', worker, 'b', began
end

-- taker(keys, malformed, worker, ttl, dropped) -> take(lane, entry): marks the job behind an entry running
-- under `worker` and returns {id, lane, stream id, fence, envelope, enqueued, and where there were any:
-- failures, crashes, releases as unknown, takes that never started}; nil when the entry leads to no job
-- to run, and then it is added to `dropped`. `keys` are those of end_job.
--
-- The fence counts takes and never decreases, so worker and fence together identify one take for ever.
--
-- A stream entry only points to a job; the job's state decides. An entry whose job is no longer `queued`
-- (cancelled, expired, fetched through another entry) is dropped, and so is one in another lane than its
-- job: the id was given to a new job. Foreign data must not stop the rest: an entry that is malformed, or
-- whose job is, is moved to `malformed`.
local function taker(keys, malformed, worker, ttl, dropped)
  local now = keys.now
  local began = string.format('%.0f', now)
  return function(lane, entry)
    local entry_id, id = entry[1], entry[2] and entry[2][1] == 'i' and entry[2][2]
    local key = id and keys.jobs .. id
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
      end_job(keys, id, 'x', ttl, '', call('HGET', key, 'n'), true)
      collect(dropped, lane, entry_id)
      return nil
    end
    local fence = job[3] and string.format('%.0f', job[3] + 1) or '1'
    call('HSET', key, running(worker, fence, began))
    local row = { id, lane, entry_id, fence, job[2], job[4] }
    if job[3] then
      -- It was taken before: add its counts.
      local past = call('HMGET', key, 'c', 'k', 'u', 'm')
      if past[1] or past[2] or past[3] or past[4] then
        row[7], row[8], row[9], row[10] = past[1], past[2], past[3], past[4]
      end
    end
    return row
  end
end
