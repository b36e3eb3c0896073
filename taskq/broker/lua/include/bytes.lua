-- MOST_BYTES: the largest reply, unless a single job or schedule is larger.
local MOST_BYTES = 4194304
