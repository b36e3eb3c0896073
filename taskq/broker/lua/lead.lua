-- Read the leader, become leader, send the leader's heartbeat, or resign.
--
-- KEYS  1 leader  2 lead channel
-- ARGV  1 clock offset  2 what: 'look', 'take', 'renew' or 'resign'  3 own name
--       4 term  5 owner and  6 beat that were seen (take), '' for none
-- Returns {done, owner or '', term, beat, since (ms), last beat (ms), server's time (ms), 1 when an
--       invalid record was removed}: the record as it is now.
-- Called by broker/leadership.py.
--
-- Each write is a compare-and-set, so a repeated or late one does no harm. The callers decide whether a
-- leader is dead, never the expiry of this key, which only cleans up.
-- A full server must not lose its leader, and foreign data in the key must not prevent a new one.
local call = redis.call
--@include clock
--@include full
local leader, channel = unpack(KEYS)
local now = clock(ARGV[1])
local what, name = ARGV[2], ARGV[3]
local record, removed = redis.pcall('HMGET', leader, 'o', 't', 'b', 's', 'h'), 0

local function is_record()
  if record.err or string.find(record[1] or '', '[^%w_.:-]') then return false end
  for i = 2, 5 do
    if record[i] and (#record[i] > 15 or not string.find(record[i], '^%d+$')) then return false end
  end
  return true
end

if not is_record() then
  call('DEL', leader)
  record, removed = {}, 1
end
local owner, term, beat, since = record[1] or '', record[2] or '0', record[3] or '0', record[4] or '0'
local heard = record[5] or since
local now_text = string.format('%.0f', now)
local done = 0

if what == 'take' and owner == ARGV[5] and term == ARGV[4] and (owner == '' or beat == ARGV[6]) then
  pass_when_full(leader)
  owner, beat, since, heard = name, '0', now_text, now_text
  term = string.format('%.0f', term + 1)
  call('HSET', leader, 'o', owner, 't', term, 'b', beat, 's', since, 'h', heard)
  done = 1
elseif what == 'renew' and owner == name and term == ARGV[4] then
  pass_when_full(leader)
  beat = string.format('%.0f', beat + 1)
  heard = now_text
  -- The time is for display; whether the leader lives is decided by its beat alone.
  call('HSET', leader, 'b', beat, 'h', heard)
  done = 1
elseif what == 'resign' and owner == name and term == ARGV[4] then
  call('HDEL', leader, 'o')
  owner = ''
  call('PUBLISH', channel, 'free')
  done = 1
end
if done == 1 then call('PEXPIRE', leader, 86400000) end
return { done, owner, tonumber(term), beat, tonumber(since), tonumber(heard), now, removed }
