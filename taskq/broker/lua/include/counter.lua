-- increase(key, field, number) -> the counter with so much added. Where others wrote a word it begins
-- again: a counter that is not one must not keep jobs from being made and ended.
local function increase(key, field, number)
  local sum = redis.pcall('HINCRBY', key, field, number)
  if type(sum) ~= 'table' then return sum end
  healing('HSET', key, field, number)
  return number
end
