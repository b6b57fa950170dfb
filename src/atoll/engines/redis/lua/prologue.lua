-- What every transaction begins with: which store is this, has it gone back in time, which leases are over.
-- Redis runs a script alone and keeps what it wrote as one entry of its log, so a script is a transaction.
local META, DATA, ORDER, LEASES, HELD, EVENTS, ASKED, ASKED_AT = unpack(KEYS)
local SEEN_ID, SEEN_EPOCH, SEEN, HISTORY_MAX, NEW_ID, FAILS_OVER, VERB =
  string.match(ARGV[1], '^(%x*) (%d+) (%d+) (%d+) (%x+) ([01]) (%l+)$')
SEEN_EPOCH, SEEN, FAILS_OVER = tonumber(SEEN_EPOCH), tonumber(SEEN), FAILS_OVER == '1'
local FORMAT, NOBODY, CHUNK, GAPS = 1, string.rep('0', 40), 1000, 30
local call = redis.call

-- Lua writes large numbers as 1.79e+15.
local function text(number) return string.format('%.0f', number) end

local clock = call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

-- The life of the server's data: a replica that is promoted gets a new one, so does a server that starts.
local life, before, copies = '?', NOBODY, false
local said = redis.pcall('INFO', 'replication')
if type(said) == 'string' then
  if not string.find(said, 'role:master', 1, true) then
    return redis.error_reply('READONLY this server is a replica')
  end
  life = string.match(said, 'master_replid:(%x+)') or '?'
  before = string.match(said, 'master_replid2:(%x+)') or NOBODY
  copies = (tonumber(string.match(said, 'connected_slaves:(%d+)')) or 0) > 0
else
  call('HDEL', META, '')  -- INFO is forbidden here; a replica refuses this
end

local function run_id()
  local server = redis.pcall('INFO', 'server')
  return type(server) == 'string' and string.match(server, 'run_id:(%x+)') or '?'
end

local function shape()
  return table.concat({call('HLEN', DATA), call('ZCARD', ORDER), call('ZCARD', LEASES), call('ZCARD', HELD),
    call('HLEN', ASKED), call('ZCARD', ASKED_AT)}, ':')
end

local found = call('HMGET', META, 'format', 'id', 'epoch', 'revision', 'life', 'accepted', 'run', 'copied',
  'gaps', 'frozen', 'shape', 'why', 'begun', 'ended')
local format, id, epoch, revision = found[1], found[2], tonumber(found[3]), tonumber(found[4])
local known_life, accepted, run, copied = found[5], found[6], found[7], found[8] == '1'
local gaps, frozen, why, begun, damage = found[9] or '', found[10] or '', found[12] or '', nil, nil

-- Every writing script counts up `begun` first and notes that number as `ended` last. Redis may bring half of a
-- script back from a file that a crash has torn; then the two differ.
local function write(...)
  if not begun then begun = call('HINCRBY', META, 'begun', 1) end
  return call(...)
end

-- Where memory is full, a script that has begun to write may go on: for what gives room back, and for renewals.
local function spare() call('HDEL', META, '') end

local function reply(status, ...)
  if begun then write('HSET', META, 'revision', text(revision), 'shape', shape(), 'ended', begun) end
  local due = call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')[2]
  local head = {status, id or '', text(revision or 0), text(epoch or 0), accepted == life and '1' or '0',
    due and text(tonumber(due) - now) or '', life, (copied or copies) and '1' or '0', why}
  return {table.concat(head, ' '), ...}
end

-- Enter transaction `number` in the stream: pairs of key and entry, an empty entry for a removed key.
local function record(number, events)
  revision = number
  if #events == 0 then events = {'', ''} end
  local part = 0
  for first = 1, #events, 2 * CHUNK do
    write('XADD', EVENTS, 'MAXLEN', '~', HISTORY_MAX, text(number) .. '-' .. part,
      unpack(events, first, math.min(first + 2 * CHUNK - 1, #events)))
    part = part + 1
  end
end

local function chunks(command, key, members)
  for first = 1, #members, CHUNK do
    write(command, key, unpack(members, first, math.min(first + CHUNK - 1, #members)))
  end
end

local function doubt(reason)
  accepted, why = '', reason
  write('HSET', META, 'accepted', '', 'why', reason)
end

-- The number goes to the server's clock in microseconds: above whatever was given before and is lost now.
-- The numbers between are noted: whoever saw one of them saw what is lost.
local function leap()
  local low, high = revision, math.max(revision + 1, now)
  gaps = string.sub(gaps .. ' ' .. text(low) .. '-' .. text(high), -GAPS * 34)
  write('HSET', META, 'gaps', gaps)
  record(high, {})
end

local function in_a_gap(number)
  for low, high in string.gmatch(gaps, '(%d+)-(%d+)') do
    if number > tonumber(low) and number < tonumber(high) then return true end
  end
  return false
end

if format and tonumber(format) > FORMAT then return {'format ' .. format} end
if life == '?' then life = known_life or life end  -- what this user may not see, another may have noted

if not id then
  if call('EXISTS', DATA, ORDER, LEASES, HELD, EVENTS, ASKED) > 0 then
    damage = 'the key ' .. META .. ' is gone, and others are there'
  end
  if not damage or VERB == 'bump' then
    id, epoch, revision, known_life, accepted, run = NEW_ID, 1, now, life, life, run_id()
    write('HSET', META, 'format', FORMAT, 'id', id, 'epoch', 1, 'life', life, 'accepted', life, 'run', run)
    record(revision, {})
  end
elseif found[13] ~= found[14] then
  damage = 'a transaction is there in part: ' .. tostring(found[13]) .. ' begun, ' .. tostring(found[14]) .. ' ended'
elseif found[11] ~= shape() then
  damage = 'noted are ' .. tostring(found[11]) .. ', there are ' .. shape()
    .. ' (entries, names, leases, leased, requests)'
end
if damage and VERB ~= 'bump' then return reply('damaged', damage) end

if known_life == '?' and life ~= '?' then
  if accepted == known_life then accepted = life end
  known_life, run = life, run_id()
  write('HSET', META, 'life', life, 'accepted', accepted, 'run', run)
end
if life ~= known_life then
  local was_certain, now_runs = accepted == known_life, run_id()
  local renamed = now_runs == run and before == NOBODY
  if not renamed then leap() end
  write('HSET', META, 'life', life, 'run', now_runs)
  if was_certain and (renamed or not (FAILS_OVER or copied or before ~= NOBODY)) then
    accepted = life
    write('HSET', META, 'accepted', life)
  elseif was_certain then
    doubt('the server was promoted from a replica, or a server with replicas was started again')
  end
end
if copies and not copied then write('HSET', META, 'copied', '1') end

if SEEN_ID ~= '' and epoch <= SEEN_EPOCH and VERB ~= 'bump' then
  local lost
  if SEEN_ID ~= id or epoch < SEEN_EPOCH then lost = 'the store was emptied and made anew'
  elseif SEEN > revision or in_a_gap(SEEN) then
    lost = 'revision ' .. text(SEEN) .. ' had been answered and is not there any more'
  end
  if lost then
    doubt(lost)
    return reply('lost')
  end
end

local function parse(entry)
  local _, last, revised, created, lease = string.find(entry, '^(%d+):(%d+):([^:]*):')
  return revised, created, lease, last
end

-- End a lease: one transaction that removes its keys.
local function finish(lease)
  local low, high = '[' .. lease .. '\0', '(' .. lease .. '\1'
  local members = call('ZRANGEBYLEX', HELD, low, high)
  spare()
  write('ZREM', LEASES, lease)
  if #members == 0 then return end
  local keys, events = {}, {}
  for number, member in ipairs(members) do
    keys[number] = string.sub(member, #lease + 2)
    events[2 * number - 1], events[2 * number] = keys[number], ''
  end
  write('ZREMRANGEBYLEX', HELD, low, high)
  chunks('HDEL', DATA, keys)
  chunks('ZREM', ORDER, keys)
  record(revision + 1, events)
end

for _, lease in ipairs(call('ZRANGEBYSCORE', LEASES, '-inf', text(now))) do finish(lease) end

local function ends(lease) return text(now + tonumber(string.match(lease, '%.(%d+)$'))) end
