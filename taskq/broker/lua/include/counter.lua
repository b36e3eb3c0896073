-- increase(key, field, number) -> the counter with so much added. Where others wrote a word it begins
-- again: a counter that is not one must not keep jobs from being made and ended.
local function increase(key, field, number)
  local sum = redis.pcall('HINCRBY', key, field, number)
  if type(sum) ~= 'table' then return sum end
  if type(redis.pcall('HSET', key, field, number)) == 'table' then
    call('DEL', key)
    call('HSET', key, field, number)
  end
  return number
end
