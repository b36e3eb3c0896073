-- List the entries that are pending for a worker, or deliver some of its jobs again.
--
-- KEYS  1 jobs  2 lanes prefix  3 lanes  4 serves
-- ARGV  1 worker  2 where to begin among its queues, 1 at first
--       3 '' lists all entries, 10,000 at most; else the entries to deliver again
-- Returns {where to continue, 0 at the end, then, for a list, per entry {lane, stream id, job id,
--       fence}, the last two '' when the entry does not lead to a running job of this worker; to deliver
--       again, per job that this worker still runs what `taker` in take.lua returns, up to the job that
--       reaches 4 MiB}.
-- Called by broker/leases.py when the reply to a fetch was lost, or the worker's event loop is blocked.
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
