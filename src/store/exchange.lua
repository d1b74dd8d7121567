-- Revocations: takes some in, and tells those that came since somebody last asked.
-- KEYS: what is known of the whole {generation, last}; members by sequence number; members by their end; member to
-- "UNTIL:ISSUED_UNTIL". ARGV: a generation to begin with; the generation that the caller has read; up to which number;
-- how many to tell at most; how many to keep at most; seconds to keep one beyond its end; the time by the caller's clock;
-- then a member, its end, and ISSUED_UNTIL or nothing, again and again.
-- Returns {generation, last, up to which number it tells, how many there was no room for, {member, value, ...}}.
local about, order, ends, values = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local more, room, kept = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

-- Whoever has lost a part has lost the whole: a new generation tells gateways to give again what they hold.
local generation, last, size
local whole = true
for at, kind in ipairs({'hash', 'zset', 'zset', 'hash'}) do
  local found = redis.call('TYPE', KEYS[at]).ok
  whole = whole and (found == kind or found == 'none')
end
if whole then
  generation = redis.call('HGET', about, 'generation')
  last = tonumber(redis.call('HGET', about, 'last'))
  size = redis.call('ZCARD', order)
  whole = generation and last and size == redis.call('ZCARD', ends) and size == redis.call('HLEN', values)
  local newest = redis.call('ZREVRANGE', order, 0, 0, 'WITHSCORES')[2]
  whole = whole and not (newest and tonumber(newest) > last)
end
if not whole then
  redis.call('UNLINK', about, order, ends, values)
  generation, last, size = ARGV[1], 0, 0
  redis.call('HSET', about, 'generation', generation, 'last', 0)
end

-- What has run out goes, some at a time; by the earlier of two clocks, lest one that is ahead makes all forget.
local over = math.min(tonumber(redis.call('TIME')[1]), tonumber(ARGV[7])) - kept
local gone = redis.call('ZRANGEBYSCORE', ends, '-inf', string.format('%.0f', over), 'LIMIT', 0, 1000)
if #gone > 0 then
  redis.call('ZREM', order, unpack(gone))
  redis.call('ZREM', ends, unpack(gone))
  redis.call('HDEL', values, unpack(gone))
  size = size - #gone
end

-- The text of the later of two times, either of which may be missing.
local function later(old, new)
  local a, b = tonumber(old), tonumber(new)
  if a and not (b and b > a) then return old end
  return new
end

local left = 0
local before = last
for at = 8, #ARGV, 3 do
  local member, till, cutoff = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if tonumber(till) > over then
    local old = redis.call('HGET', values, member)
    if old then
      local old_till, old_cutoff = string.match(old, '^(%-?%d+):(%-?%d*)$')
      till, cutoff = later(old_till, till), later(old_cutoff, cutoff)
    end
    local value = till .. ':' .. cutoff
    if not old and size >= room then
      left = left + 1
    elseif value ~= old then
      if not old then size = size + 1 end
      last = last + 1
      redis.call('ZADD', order, last, member)
      redis.call('ZADD', ends, till, member)
      redis.call('HSET', values, member, value)
    end
  end
end
if last > before then redis.call('HSET', about, 'last', string.format('%.0f', last)) end

local upto = tonumber(ARGV[3])
if ARGV[2] ~= generation or upto > last then upto = 0 end
local told = {}
if more > 0 and upto < last then
  local from = '(' .. string.format('%.0f', upto)
  local found = redis.call('ZRANGEBYSCORE', order, from, '+inf', 'WITHSCORES', 'LIMIT', 0, more)
  for at = 1, #found, 2 do
    told[#told + 1] = found[at]
    told[#told + 1] = redis.call('HGET', values, found[at]) or ''
    upto = tonumber(found[at + 1])
  end
  if #found < 2 * more then upto = last end
end
return {generation, last, upto, left, told}
