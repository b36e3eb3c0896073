-- List what the server says a worker holds, and hand again what the worker asks for.
--
-- KEYS  1 jobs  2 lanes prefix  3 lanes  4 serves
-- ARGV  1 worker  2 where to begin among its queues, 1 at first
--       3 '' lists everything it holds, 10,000 entries at most; else the entries to hand again
-- Returns {where to go on, 0 at the end, then without entries: per entry held {lane, stream id, job id, fence}; the last two are '' for an
--       entry that leads to no job of this worker. With entries: as fetch, per job still running under
--       this worker what `taker` gives, up to 4 MiB and the job that passes that}.
-- Called by broker/leases.py when the reply to a fetch was lost, or the worker's event loop stands still.
local call = redis.call
--@include healing
--@include lane
local jobs, prefix, lanes, serves = unpack(KEYS)
local worker, wanted, answer, bytes, looked = ARGV[1], {}, { 0 }, 0, 0
local MOST_LANES = 1000
for i = 3, #ARGV do wanted[ARGV[i]] = true end

local function look_at(lane, stream_id)
  local entry = call('XRANGE', prefix .. lane, stream_id, stream_id)[1]
  local id = entry and entry[2][1] == 'i' and entry[2][2]
  local job = id and redis.pcall('HMGET', jobs .. id, 's', 'w', 'a', 'e', 'c', 'k', 'u', 't', 'm') or {}
  local ours = not job.err and job[1] == 'r' and job[2] == worker
  if ARGV[3] == '' then
    answer[#answer + 1] = { lane, stream_id, ours and id or '', ours and job[3] or '' }
  elseif ours then
    answer[#answer + 1] = { id, lane, stream_id, job[3], job[4], job[8], job[5], job[6], job[7], job[9] }
    bytes = bytes + #(job[4] or '')
  end
end

local served = string.sub(healing('HGET', serves, worker) or '', tonumber(ARGV[2]))
for at, queue in string.gmatch(served, '()(%S+)') do
  if looked >= MOST_LANES then
    answer[1] = ARGV[2] + at - 1
    break
  end
  looked = looked + 1
  for sign in string.gmatch(healing('HGET', lanes, queue) or '', LANES) do
    local lane = lane_of(queue, sign)
    looked = looked + 1
    local pending = redis.pcall('XPENDING', prefix .. lane, 'g', '-', '+', 10000, worker)
    for i = 1, pending.err and 0 or #pending do
      local stream_id = pending[i][1]
      local asked = ARGV[3] == '' or wanted[entry_name(lane, stream_id)]
      if asked and #answer < 10000 and bytes < 4194304 then look_at(lane, stream_id) end
    end
  end
end
return answer
