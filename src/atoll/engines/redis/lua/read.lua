-- One entry, some entries in key order, or a page of what happened; all as of one revision.
local LAST = '-18446744073709551615'

local function entries(low, high, limit)
  local keys = call('ZRANGEBYLEX', ORDER, '[' .. low, high == '' and '+' or '(' .. high, 'LIMIT', 0, limit)
  local values = {}
  for first = 1, #keys, CHUNK do
    local some = call('HMGET', DATA, unpack(keys, first, math.min(first + CHUNK - 1, #keys)))
    for _, entry in ipairs(some) do values[#values + 1] = entry end
  end
  return keys, values
end

-- The transactions after `after`, of each only what is below `prefix`; those without any only if `all`.
local function page(after, prefix, all, most)
  local read = call('XRANGE', EVENTS, '(' .. after .. LAST, '+', 'COUNT', most)
  local full, last = #read == most, text(revision)
  if full then  -- the last transaction may go on behind what was read
    last = string.match(read[#read][1], '^%d+')
    for _, rest in ipairs(call('XRANGE', EVENTS, '(' .. read[#read][1], last .. LAST)) do read[#read + 1] = rest end
  end
  local changes, number, mine = {}, '', {}
  for _, item in ipairs(read) do
    local fields, of = item[2], string.match(item[1], '^%d+')
    if of ~= number then number, mine = of, {} end  -- a large transaction is several items of one number
    for n = 1, #fields, 2 do
      if fields[n] ~= '' and string.sub(fields[n], 1, #prefix) == prefix then
        mine[#mine + 1], mine[#mine + 2] = fields[n], fields[n + 1]
      end
    end
    local told = changes[#changes]
    if (all or #mine > 0) and not (told and told[1] == number) then changes[#changes + 1] = {number, mine} end
  end
  return full and '1' or '0', last, changes
end

if VERB == 'state' then return reply('ok', frozen, id) end
if VERB == 'get' then return reply('ok', call('HGET', DATA, ARGV[2]) or '') end
if VERB == 'range' then return reply('ok', entries(ARGV[2], ARGV[3], ARGV[4])) end
if VERB == 'remaining' then
  local at = call('ZSCORE', LEASES, ARGV[2])
  return reply('ok', at and text(tonumber(at) - now) or '')
end

-- look: low, high, prefix, after ('' for none), all, most
local first = call('XRANGE', EVENTS, '-', '+', 'COUNT', 1)[1]
local oldest = text((first and tonumber(string.match(first[1], '^%d+')) or revision) + 1)
local after = ARGV[5]
if after ~= '' and #call('XRANGE', EVENTS, after .. '-0', after .. LAST, 'COUNT', 1) > 0 then
  return reply('ok', oldest, 'changes', page(after, ARGV[4], ARGV[6] == '1', tonumber(ARGV[7])))
end
return reply('ok', oldest, 'snapshot', entries(ARGV[2], ARGV[3], -1))
