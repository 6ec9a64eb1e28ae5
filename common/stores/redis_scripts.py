"""The steps that Redis must take at one moment, in Lua.

A lease, an entry and a failure are strings that begin with the moment their lease was taken: 16 digits, microseconds
of the server's clock. So nothing here compares the clocks of two machines.
"""

CLAIM = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local max_age, newer_than = tonumber(ARGV[3]), tonumber(ARGV[4])
local stored = redis.call('MGET', KEYS[1], KEYS[2])
for i, state in ipairs({'found', 'failed'}) do
  if stored[i] then
    local read_at = tonumber(string.sub(stored[i], 1, 16))
    if read_at > newer_than and read_at <= now and (max_age < 0 or now - read_at < max_age) then
      return {state, now, stored[i]}
    end
  end
end
if redis.call('SET', KEYS[3], string.format('%016.0f', now) .. ARGV[1], 'NX', 'PX', ARGV[2]) then
  return {'leased', now, ''}
end
return {'held', now, ''}
"""
"""KEYS: entry, failure, lease. ARGV: owner, lease in ms, oldest age in us or -1, newer than in us."""

FULFIL = """
local lease = redis.call('GET', KEYS[3])
if not lease or string.sub(lease, 17) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], string.sub(lease, 1, 16) .. ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[2], KEYS[3])
return 1
"""
"""KEYS: entry, failure, lease. ARGV: owner, value, time to live in ms."""

FAIL = """
local lease = redis.call('GET', KEYS[3])
if not lease or string.sub(lease, 17) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], string.sub(lease, 1, 16) .. ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[3])
return 1
"""
"""KEYS: entry, failure, lease. ARGV: owner, note, time to live in ms."""

RENEW = """
local lease = redis.call('GET', KEYS[1])
if not lease or string.sub(lease, 17) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
"""KEYS: lease. ARGV: owner, time to live in ms."""

RELEASE = """
local lease = redis.call('GET', KEYS[1])
if not lease or string.sub(lease, 17) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
"""KEYS: lease. ARGV: owner."""
