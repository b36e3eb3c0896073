-- clock(offset) -> milliseconds of the server's clock, moved by `offset` (0 outside tests).
local function clock(offset)
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(offset)
end

-- instant(now, text) -> milliseconds: '+<ms>' is relative to now, '@<ms>' absolute, '' gives nil.
local function instant(now, text)
  if text == '' then return nil end
  local value = tonumber(string.sub(text, 2))
  if string.byte(text) == 43 then return now + value end
  return value
end
