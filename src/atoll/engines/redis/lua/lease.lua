-- Leases stand in a table ordered by their end, by the server's clock; the name carries how long it is granted.
local lease = ARGV[2]

if VERB == 'grant' then
  if accepted ~= life then return reply('uncertain') end
  write('ZADD', LEASES, ends(lease), lease)
  return reply('ok')
end

if not call('ZSCORE', LEASES, lease) then return reply('over', lease) end
if VERB == 'keep' then
  spare()
  write('ZADD', LEASES, ends(lease), lease)
  return reply('ok')
end
finish(lease)
return reply('ok')
