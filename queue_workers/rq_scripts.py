"""The scripts that change a queue in Redis, each in one step that nothing can cut in two; `rq_units` names their keys.

Cost: a few µs each, but `WITHDRAW`: O(waiting).
"""

# KEYS: paused, owners, held, failures, lost, errors, then each list and its wip. ARGV: execution, worker, seconds.
TAKE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return false end
for i = 7, #KEYS, 2 do
  while true do
    local id = redis.call('LPOP', KEYS[i])
    if not id then break end
    local data = redis.call('HGET', 'rq:job:' .. id, 'data')
    if redis.call('SISMEMBER', KEYS[3], string.match(id, '_(.*)_') or '') == 1 then
      redis.call('DEL', 'rq:job:' .. id)
      for j = 4, 6 do redis.call('HDEL', KEYS[j], string.match(id, '[^_]*$')) end
    elseif data then
      local entry = id .. ':' .. ARGV[1]
      redis.call('ZADD', KEYS[i + 1], redis.call('TIME')[1] + ARGV[3], entry)
      redis.call('HSET', KEYS[2], entry, ARGV[2])
      return {(i - 7) / 2, id, data}
    end
  end
end
return false
"""

# A Redis without memory allows ZADD only after a command that needs none.
BEAT = """
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
redis.call('ZREM', KEYS[1], '')
redis.call('ZADD', KEYS[1], redis.call('TIME')[1] + ARGV[2], ARGV[1])
return 1
"""

# KEYS: list, wip, owners, failures, lost, errors, dead, job, held.
# ARGV: entry, job id, unit id, unit, priority, state, error, most failures, most lost, 1 = only if its lease has ended.
SETTLE = """
local lease = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not lease then return 0 end
if ARGV[10] == '1' and tonumber(lease) > tonumber(redis.call('TIME')[1]) then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
local ends = ARGV[6] == 'done' or ARGV[6] == 'drop'
  or redis.call('SISMEMBER', KEYS[9], string.match(ARGV[2], '_(.*)_') or '') == 1
  or redis.call('EXISTS', KEYS[8]) == 0
if ends then
elseif ARGV[6] == 'failed' or ARGV[6] == 'lost' then
  redis.call('HINCRBY', ARGV[6] == 'failed' and KEYS[4] or KEYS[5], ARGV[3], 1)
  redis.call('HSET', KEYS[6], ARGV[3], ARGV[7])
  local failures = tonumber(redis.call('HGET', KEYS[4], ARGV[3]) or 0)
  local lost = tonumber(redis.call('HGET', KEYS[5], ARGV[3]) or 0)
  if failures >= tonumber(ARGV[8]) or lost >= tonumber(ARGV[9]) then
    redis.call('HSET', KEYS[7], ARGV[3], '{"unit":' .. ARGV[4] .. ',"priority":"' .. ARGV[5] .. '","failures":' ..
      failures .. ',"lost":' .. lost .. ',"error":' .. cjson.encode(ARGV[7]) .. '}')
    ends = true
  end
end
if ends then
  redis.call('DEL', KEYS[8])
  for i = 4, 6 do redis.call('HDEL', KEYS[i], ARGV[3]) end
else
  redis.call('RPUSH', KEYS[1], ARGV[2])
end
return 1
"""

# ARGV: how many words the jobs share, those words (fields and values), then for each job its id, data, description.
# A job's key is emptied first: what an earlier delivery left there must not pass on. SADD comes before it: it is what a
# Redis without memory refuses.
PUSH = """
redis.call('SADD', KEYS[2], KEYS[1])
local shared, ids = {}, {}
for i = 2, ARGV[1] + 1 do shared[#shared + 1] = ARGV[i] end
for i = ARGV[1] + 2, #ARGV, 3 do
  local key = 'rq:job:' .. ARGV[i]
  redis.call('DEL', key)
  redis.call('HSET', key, 'data', ARGV[i + 1], 'description', ARGV[i + 2], unpack(shared))
  ids[#ids + 1] = ARGV[i]
end
redis.call('RPUSH', KEYS[1], unpack(ids))
"""

# KEYS: list, failures, lost, errors. ARGV: tags of prompt types; none: all. One turn of the list, 4,000 at a time: what stays keeps its order.
WITHDRAW = """
local wanted, gone = {}, 0
for _, tag in ipairs(ARGV) do wanted[tag] = true end
local left = redis.call('LLEN', KEYS[1])
while left > 0 do
  local step = math.min(left, 4000)
  local ids, kept, jobs, units = redis.call('LRANGE', KEYS[1], 0, step - 1), {}, {}, {}
  redis.call('LTRIM', KEYS[1], step, -1)
  left = left - step
  for _, id in ipairs(ids) do
    if #ARGV == 0 or wanted[string.match(id, '_(.*)_') or ''] then
      jobs[#jobs + 1] = 'rq:job:' .. id
      units[#units + 1] = string.match(id, '[^_]*$')
    else
      kept[#kept + 1] = id
    end
  end
  if #jobs > 0 then
    redis.call('UNLINK', unpack(jobs))
    for i = 2, 4 do redis.call('HDEL', KEYS[i], unpack(units)) end
  end
  if #kept > 0 then redis.call('RPUSH', KEYS[1], unpack(kept)) end
  gone = gone + #jobs
end
return gone
"""

DEPTH = """
local counts = {redis.call('EXISTS', KEYS[1])}
for i = 2, #KEYS, 2 do
  counts[#counts + 1] = redis.call('LLEN', KEYS[i])
  counts[#counts + 1] = redis.call('ZCARD', KEYS[i + 1])
end
return counts
"""
