-- List what the server says a worker holds, and hand again what the worker asks for.
--
-- KEYS  1 jobs  2 lanes prefix  3 lanes
-- ARGV  1 worker  2 '' lists everything it holds; else the entries to hand again
-- Returns without entries: each entry held. With entries: as fetch, per job still running under
--       this worker {id, lane, stream id, attempt, envelope, enqueued, failures, crashes, unknown}.
-- Called by broker/leases.py when the reply to a fetch was lost.
local call = redis.call
--@include lane
local jobs, prefix, lanes = unpack(KEYS)
local worker, wanted, answer = ARGV[1], {}, {}
for i = 2, #ARGV do wanted[ARGV[i]] = true end

for _, lane in ipairs(call('SMEMBERS', lanes)) do
  local pending = redis.pcall('XPENDING', prefix .. lane, 'g', '-', '+', 10000, worker)
  for i = 1, pending.err and 0 or #pending do
    local stream_id = pending[i][1]
    local name = entry_name(lane, stream_id)
    if ARGV[2] == '' then
      answer[#answer + 1] = name
    elseif wanted[name] then
      local entry = call('XRANGE', prefix .. lane, stream_id, stream_id)[1]
      local id = entry and entry[2][1] == 'i' and entry[2][2]
      local job = id and call('HMGET', jobs .. id, 's', 'w', 'a', 'e', 'c', 'k', 'u', 't') or {}
      if job[1] == 'r' and job[2] == worker then
        answer[#answer + 1] = { id, lane, stream_id, job[3], job[4], job[8], job[5], job[6], job[7] }
      end
    end
  end
end
return answer
