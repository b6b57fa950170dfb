-- May this user do all that the scripts do? One that is stopped half-way would leave half a transaction.
local probe, denied = KEYS[1], {}
local needed = {{'HDEL', probe, 'f'}, {'HINCRBY', probe, 'n', 1}, {'HSET', probe, 'f', 'v'}, {'HGET', probe, 'f'}, {'HMGET', probe, 'f'},
  {'HLEN', probe}, {'HKEYS', probe}, {'EXISTS', probe}, {'DEL', probe}, {'ZADD', probe, 0, 'm'},
  {'ZSCORE', probe, 'm'}, {'ZCARD', probe}, {'ZRANGE', probe, 0, 0}, {'ZRANGEBYSCORE', probe, 0, 1},
  {'ZRANGEBYLEX', probe, '-', '+'}, {'ZREMRANGEBYLEX', probe, '-', '+'}, {'ZREM', probe, 'm'}, {'DEL', probe},
  {'XADD', probe, '*', 'f', 'v'}, {'XRANGE', probe, '-', '+'}, {'DEL', probe}, {'TIME'}}
for _, command in ipairs(needed) do
  local answer = redis.pcall(unpack(command))
  local said = type(answer) == 'table' and answer.err or ''
  if string.find(said, 'NOPERM', 1, true) or string.find(said, "can't run this command", 1, true)
    or string.find(said, "can't access", 1, true) or string.find(said, 'no permission', 1, true) then
    denied[#denied + 1] = command[1]
  end
end
return denied
