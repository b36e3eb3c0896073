-- MOST_BYTES: no reply has more, unless it is about a single job or schedule that is larger.
local MOST_BYTES = 4194304
