-- Judge and, if all holds, write. Whatever can be refused is refused before the first write: nothing is undone.
local REQUEST, WINDOW, GUARD_KEY, GUARD_EPOCH, GUARD = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
local compares = tonumber(ARGV[7])
local at = 8 + 3 * compares
local operations = tonumber(ARGV[at])

if REQUEST ~= '' then
  local asked = call('ZSCORE', ASKED_AT, REQUEST)
  if asked and tonumber(asked) > now - WINDOW then return reply('replayed', call('HGET', ASKED, REQUEST)) end
end
if frozen ~= '' and operations > 0 then return reply('frozen', frozen) end

local lease = ''
for n = 0, operations - 1 do
  if ARGV[at + 4 * n + 4] ~= '' then lease = ARGV[at + 4 * n + 4] end
end
if (GUARD_KEY ~= '' or lease ~= '') and accepted ~= life then return reply('uncertain') end

if GUARD_KEY ~= '' then
  local owner = call('HGET', DATA, GUARD_KEY)
  if not owner or parse(owner) ~= GUARD or text(epoch) ~= GUARD_EPOCH then
    return reply('refused', owner or '')
  end
end

if compares > 0 then
  local seen, holds = {}, true
  for n = 0, compares - 1 do
    local key, field, expected = ARGV[8 + 3 * n], ARGV[9 + 3 * n], ARGV[10 + 3 * n]
    local entry = call('HGET', DATA, key)
    seen[n + 1] = entry or ''
    local revised, created, _, last = '0', '0', '', 0
    if entry then revised, created, _, last = parse(entry) end
    if field == 'r' then holds = holds and revised == expected
    elseif field == 'c' then holds = holds and created == expected
    else holds = holds and entry and string.sub(entry, last + 1) == expected end
  end
  if not holds then return reply('unmet', seen) end
end
if lease ~= '' and not call('ZSCORE', LEASES, lease) then return reply('over', lease) end
if operations == 0 then return reply('applied', {}) end

local number = revision + 1
local results, events, puts = {}, {}, false
for n = 0, operations - 1 do puts = puts or ARGV[at + 4 * n + 1] == 'p' end
if not puts then spare() end
for n = 0, operations - 1 do
  local kind, key, value, under = unpack(ARGV, at + 4 * n + 1, at + 4 * n + 4)
  local old, old_lease, created = call('HGET', DATA, key), '', text(number)
  if old then local _; _, created, old_lease = parse(old) end
  if old_lease ~= '' then write('ZREM', HELD, old_lease .. '\0' .. key) end
  if kind == 'p' then
    local entry = text(number) .. ':' .. created .. ':' .. under .. ':' .. value
    write('HSET', DATA, key, entry)
    if not old then write('ZADD', ORDER, 0, key) end
    if under ~= '' then write('ZADD', HELD, 0, under .. '\0' .. key) end
    results[n + 1] = created
    events[#events + 1], events[#events + 2] = key, entry
  else
    if old then
      write('HDEL', DATA, key)
      write('ZREM', ORDER, key)
      events[#events + 1], events[#events + 2] = key, ''
    end
    results[n + 1] = old or ''
  end
end
record(number, events)
if REQUEST ~= '' then
  local over = call('ZRANGEBYSCORE', ASKED_AT, '-inf', text(now - WINDOW), 'LIMIT', 0, CHUNK)
  if #over > 0 then
    write('HDEL', ASKED, unpack(over))
    write('ZREM', ASKED_AT, unpack(over))
  end
  write('HSET', ASKED, REQUEST, text(number))
  write('ZADD', ASKED_AT, text(now), REQUEST)
end
return reply('applied', results)
