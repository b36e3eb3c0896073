-- increase(key, field, number) -> the counter after adding `number`. A value that is not a number, as
-- foreign data is, starts again at zero: it must not stop jobs from being made and ended.
local function increase(key, field, number)
  local sum = redis.pcall('HINCRBY', key, field, number)
  if type(sum) ~= 'table' then return sum end
  healing('HSET', key, field, number)
  return number
end
