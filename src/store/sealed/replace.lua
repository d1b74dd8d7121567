-- Puts ARGV[2] in place of the value that begins with ARGV[1], for ARGV[3] milliseconds; whether that was still there.
if redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
