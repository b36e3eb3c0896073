-- Remove a worker from the idle sets; pass a wake-up that it will not follow to another worker.
--
-- KEYS  1 idle prefix  2 wake channel prefix
-- ARGV  1 worker  2 '1' when it may have been woken and does not fetch  then its queues
-- Returns the number of places in which it waited.
-- Called by broker/consumer.py.
local call = redis.call
--@include healing
--@include lane
local waited = 0
for i = 3, #ARGV do
  for _, kind in ipairs({ '', '/t', '/p' }) do
    local place = ARGV[i] .. kind
    if healing('SREM', KEYS[1] .. place, ARGV[1]) == 1 then
      waited = waited + 1
    elseif ARGV[2] == '1' then
      wake_idle(KEYS[1], KEYS[2], place, 1)
    end
  end
end
return waited
