-- GCRA, one step. KEYS[1]: the caller. ARGV[1]: microseconds from one request to the next; ARGV[2]: the burst.
-- What is kept is the moment until which everything is used up, in microseconds of Redis's own clock, counted from
-- 2025 so that a double has room for fractions. Returns {1, left} or {0, microseconds to wait}.
local period, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local whole = period * burst
local time = redis.call('TIME')
local now = (tonumber(time[1]) - 1735689600) * 1000000 + tonumber(time[2])
local used = tonumber(redis.call('GET', KEYS[1]) or now) or now
-- Never further ahead than an honest count can be: a clock that was set back must not lock anybody out.
used = math.min(math.max(used, now), now + whole)
local after = used + period
-- What rounding loses must not cost a request.
if after - now > whole + 0.01 then
  return {0, math.ceil(after - now - whole)}
end
redis.call('SET', KEYS[1], string.format('%.3f', after), 'PX', math.ceil((after - now) / 1000) + 1)
return {1, math.floor((whole - (after - now)) / period + 0.01)}
