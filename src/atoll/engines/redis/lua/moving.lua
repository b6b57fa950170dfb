-- The operator's verbs: raise the epoch and accept the server as it is, or stop taking writes.

-- From the entries alone, the one thing that cannot be worked out from the others.
local function rebuild()
  write('DEL', ORDER, HELD, ASKED, ASKED_AT)
  for _, key in ipairs(call('HKEYS', DATA)) do
    local _, _, lease = parse(call('HGET', DATA, key))
    if lease ~= '' and not call('ZSCORE', LEASES, lease) then
      write('HDEL', DATA, key)
    else
      write('ZADD', ORDER, 0, key)
      if lease ~= '' then write('ZADD', HELD, 0, lease .. '\0' .. key) end
    end
  end
end

if VERB == 'bump' then
  if damage then rebuild() end
  epoch, accepted, why = math.max(epoch, tonumber(ARGV[2]), SEEN_EPOCH) + 1, life, ''
  write('HSET', META, 'epoch', text(epoch), 'accepted', life, 'life', life, 'run', run_id(), 'why', '',
    'copied', copies and '1' or '0', 'gaps', '')
  copied = copies
  record(math.max(revision + 1, SEEN + 1), {})
  return reply('ok')
end

write('HSET', META, 'frozen', ARGV[2])
return reply('ok')
