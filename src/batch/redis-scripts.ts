// What Redis does for files and batches, in Lua: each script is one step of the store, whole or not at all. Who calls them, and
// what their answers mean, is `redis-store.ts`.
//
// - KEYS[1] is the root, with the fleet's hash tag: every other key begins with it and so is on the same server of a Cluster.
// - A full memory refuses a script's first write and lets it go on after one that was made, so no step is half done. What frees
//   memory, and what keeps a result, begins with a deletion, which is never refused.
// - Numbers that are joined to texts would lose digits in Lua; they come and go as they are.
import { createHash } from 'node:crypto';

export interface BatchScript {
  readonly source: string;
  readonly sha: string;
}

/** Rows deleted by one sweep; lines whose pause is over taken up by one claim. */
const AT_ONCE = { swept: 100, due: 1_000 };
/** Keys of a batch's lines. */
const LINE_KEYS = ['lines', 'ids', 'bodies', 'tries', 'results', 'ready', 'waiting'];

// file:ID, pieces:ID, writing (id → worker), expiring, workers, batch:ID, open (by due), over (by creation), and per list of a tenant
// a sorted set by `seq`. Of lines by batch: lines (all numbers), ids, bodies, tries, results, ready and waiting (numbers without
// result and claim), claimers (workers), held:WORKER:BATCH (what each has claimed), claims:BATCH (each worker's last claim).
const PRELUDE = `
local R, P, A, call = KEYS[1], KEYS[1] .. ':', ARGV, redis.call
local function aliveAt(given)
  if given ~= '' then return tonumber(given) end
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function dead(worker, nowMs)
  local untilMs = worker and call('ZSCORE', P .. 'workers', worker)
  return not untilMs or tonumber(untilMs) <= nowMs
end
local function dropFile(id)
  local f = call('HMGET', P .. 'file:' .. id, 'bytes', 'list', 'purposes')
  if not f[1] then return 0 end
  call('UNLINK', P .. 'pieces:' .. id, P .. 'file:' .. id)
  call('HDEL', P .. 'writing', id)
  call('ZREM', P .. 'expiring', id)
  if f[2] then call('ZREM', f[2], id) call('ZREM', f[3], id) end
  call('HINCRBY', R, 'bytes', -tonumber(f[1]))
  return 1
end
local function uncommitted(id)
  local f = call('HMGET', P .. 'file:' .. id, 'bytes', 'doc')
  return f[1] and not f[2]
end
local function commitFile(id, tenant, list, purposes, expiresAtS, doc)
  local seq = call('HGET', P .. 'file:' .. id, 'seq')
  call('HSET', P .. 'file:' .. id, 'doc', doc, 'tenant', tenant, 'list', P .. list, 'purposes', P .. purposes)
  call('HDEL', P .. 'writing', id)
  call('ZADD', P .. list, seq, id)
  call('ZADD', P .. purposes, seq, id)
  call('ZADD', P .. 'expiring', expiresAtS, id)
end
local function writeBatch(id, doc, status, over)
  call('HSET', P .. 'batch:' .. id, 'doc', doc, 'status', status, 'over', over)
  if over == '1' then
    local b = call('HMGET', P .. 'batch:' .. id, 'active', 'created')
    call('ZREM', P .. 'open', id)
    call('SREM', b[1], id)
    call('ZADD', P .. 'over', b[2], id)
  end
end
local function batch(id)
  local b = call('HMGET', P .. 'batch:' .. id, 'doc', 'total', 'completed', 'failed')
  return b[1] and b or nil
end
local function page(list, after, limit, newest)
  local from = '-inf'
  if newest == '1' then from = '+inf' end
  if after ~= '' then
    local seq = call('ZSCORE', P .. list, after)
    if not seq then return nil end
    from = '(' .. seq
  end
  if newest == '1' then return call('ZREVRANGEBYSCORE', P .. list, from, '-inf', 'LIMIT', 0, limit) end
  return call('ZRANGEBYSCORE', P .. list, from, '+inf', 'LIMIT', 0, limit)
end
local function held(worker, id) return P .. 'held:' .. worker .. ':' .. id end
local function letGo(worker, id)
  for _, line in ipairs(call('SMEMBERS', held(worker, id))) do call('ZADD', P .. 'ready:' .. id, line, line) end
  call('DEL', held(worker, id))
  call('SREM', P .. 'claimers:' .. id, worker)
end
local function unclaim(id, line)
  for _, worker in ipairs(call('SMEMBERS', P .. 'claimers:' .. id)) do call('SREM', held(worker, id), line) end
end
local function clearLines(id)
  for _, worker in ipairs(call('SMEMBERS', P .. 'claimers:' .. id)) do call('UNLINK', held(worker, id)) end
  call('UNLINK', P .. 'claimers:' .. id, P .. 'claims:' .. id, ${LINE_KEYS.map((key) => `P .. '${key}:' .. id`).join(', ')})
end
`;

export const BATCH_SCRIPTS = {
  /** id, worker */
  beginFile: script(`
    call('HSET', P .. 'file:' .. A[1], 'bytes', 0, 'pieces', 0, 'seq', call('HINCRBY', R, 'seq', 1))
    call('HSET', P .. 'writing', A[1], A[2])
    return 'ok'`),
  /** id, bytes that all files may have or -1, bytes */
  appendFile: script(`
    if not uncommitted(A[1]) then return 'gone' end
    local max = tonumber(A[2])
    if max >= 0 and tonumber(call('HGET', R, 'bytes') or '0') + #A[3] > max then return 'full' end
    call('HSET', P .. 'pieces:' .. A[1], call('HGET', P .. 'file:' .. A[1], 'pieces') + 1, A[3])
    call('HINCRBY', P .. 'file:' .. A[1], 'pieces', 1)
    call('HINCRBY', P .. 'file:' .. A[1], 'bytes', #A[3])
    call('HINCRBY', R, 'bytes', #A[3])
    return 'ok'`),
  /** files that there may be or -1, then what commitFile takes */
  commitFile: script(`
    if not uncommitted(A[2]) then return 'gone' end
    local max = tonumber(A[1])
    if max >= 0 and call('ZCARD', P .. A[4]) >= max then return 'too-many' end
    commitFile(A[2], A[3], A[4], A[5], A[6], A[7])
    return 'ok'`),
  /** id. One that is committed stays: whose answer was lost may have been. */
  dropFile: script(`
    if uncommitted(A[1]) then return dropFile(A[1]) end
    return 0`),
  /** id, tenant */
  file: script(`
    local f = call('HMGET', P .. 'file:' .. A[1], 'tenant', 'doc')
    return f[1] == A[2] and f[2]`),
  deleteFile: script(`
    if call('HGET', P .. 'file:' .. A[1], 'tenant') ~= A[2] then return 0 end
    return dropFile(A[1])`),
  /** list, after or '', limit, newest first */
  files: script(`
    local ids = page(A[1], A[2], A[3], A[4])
    if not ids then return false end
    local docs = {}
    for _, id in ipairs(ids) do docs[#docs + 1] = call('HGET', P .. 'file:' .. id, 'doc') or nil end
    return docs`),

  /** id, tenant, list, active, batches that may be active, due, created, doc, status, over, total, completed, failed */
  createBatch: script(`
    if call('SCARD', P .. A[4]) >= tonumber(A[5]) then return 'too-many' end
    local seq = call('HINCRBY', R, 'seq', 1)
    call('HSET', P .. 'batch:' .. A[1], 'tenant', A[2], 'list', P .. A[3], 'active', P .. A[4], 'created', A[7], 'total', A[11], 'completed', A[12], 'failed', A[13])
    call('ZADD', P .. A[3], seq, A[1])
    call('SADD', P .. A[4], A[1])
    call('ZADD', P .. 'open', A[6], A[1])
    writeBatch(A[1], A[8], A[9], A[10])
    return 'ok'`),
  /** id, tenant or '' */
  batch: script(`
    if A[2] ~= '' and call('HGET', P .. 'batch:' .. A[1], 'tenant') ~= A[2] then return false end
    return batch(A[1]) or false`),
  batches: script(`
    local ids = page(A[1], A[2], A[3], A[4])
    if not ids then return false end
    local found = {}
    for _, id in ipairs(ids) do found[#found + 1] = batch(id) end
    return found`),
  openBatches: script(`
    local found = {}
    for _, id in ipairs(call('ZRANGE', P .. 'open', 0, -1)) do found[#found + 1] = batch(id) end
    return found`),
  /** id, doc that it has been, doc, status, over, more of total, completed, failed. Of two that change it at once the second looks again. */
  changeBatch: script(`
    local before = call('HGET', P .. 'batch:' .. A[1], 'doc')
    if not before then return false end
    if before ~= A[2] then return 'changed' end
    writeBatch(A[1], A[3], A[4], A[5])
    for at, key in ipairs({'total', 'completed', 'failed'}) do call('HINCRBY', P .. 'batch:' .. A[1], key, A[5 + at]) end
    return batch(A[1])`),

  /** worker, now or '' for Redis' time, life */
  beat: script(`
    local nowMs = aliveAt(A[2])
    call('ZADD', P .. 'workers', nowMs + A[3], A[1])
    call('ZREMRANGEBYSCORE', P .. 'workers', '-inf', nowMs)
    return 'ok'`),
  leave: script(`
    call('ZREM', P .. 'workers', A[1])
    for _, id in ipairs(call('ZRANGE', P .. 'open', 0, -1)) do
      letGo(A[1], id)
      if call('HGET', P .. 'batch:' .. id, 'worker') == A[1] then call('HDEL', P .. 'batch:' .. id, 'worker') end
    end
    return 'ok'`),
  /** id, worker, now. One's own again, too: the answer to the first claim may have been lost. */
  claimBatch: script(`
    local b = call('HMGET', P .. 'batch:' .. A[1], 'over', 'worker')
    if b[1] ~= '0' or (b[2] ~= A[2] and not dead(b[2], aliveAt(A[3]))) then return 0 end
    call('HSET', P .. 'batch:' .. A[1], 'worker', A[2])
    return 1`),
  unclaimBatch: script(`
    if call('HGET', P .. 'batch:' .. A[1], 'worker') == A[2] then call('HDEL', P .. 'batch:' .. A[1], 'worker') end
    return 'ok'`),
  clearLines: script(`
    clearLines(A[1])
    return 'ok'`),
  /** id, then number, custom_id and body of each */
  addLines: script(`
    local id = A[1]
    if call('EXISTS', P .. 'batch:' .. id) == 0 then return 'gone' end
    for at = 2, #A, 3 do if call('ZSCORE', P .. 'lines:' .. id, A[at]) then return 'twice' end end
    for at = 2, #A, 3 do
      call('ZADD', P .. 'lines:' .. id, A[at], A[at])
      call('ZADD', P .. 'ready:' .. id, A[at], A[at])
      call('HSET', P .. 'ids:' .. id, A[at], A[at + 1])
      call('HSET', P .. 'bodies:' .. id, A[at], A[at + 2])
    end
    return 'ok'`),
  /**
   * id, worker, lines, now of the caller, now of lives, number of this claim, number of the last one that was answered. Lines of a claim
   * whose answer was lost are nobody's again; a claim that comes after a later one claims nothing.
   */
  claimLines: script(`
    local id, worker = A[1], A[2]
    if call('HGET', P .. 'batch:' .. id, 'status') ~= 'in_progress' then return {} end
    local claims = P .. 'claims:' .. id
    local last = call('HMGET', claims, worker, 'of ' .. worker)
    if last[1] and tonumber(A[6]) <= tonumber(last[1]) then return {} end
    if last[1] and last[1] ~= A[7] then
      for line in string.gmatch(last[2], '%d+') do
        if call('SREM', held(worker, id), line) == 1 then call('ZADD', P .. 'ready:' .. id, line, line) end
      end
    end
    local nowMs = aliveAt(A[5])
    for _, other in ipairs(call('SMEMBERS', P .. 'claimers:' .. id)) do
      if dead(other, nowMs) then
        letGo(other, id)
        if other ~= worker then call('HDEL', claims, other, 'of ' .. other) end
      end
    end
    for _, line in ipairs(call('ZRANGEBYSCORE', P .. 'waiting:' .. id, '-inf', A[4], 'LIMIT', 0, ${AT_ONCE.due})) do
      call('ZADD', P .. 'ready:' .. id, line, line)
      call('ZREM', P .. 'waiting:' .. id, line)
    end
    local lines, found = call('ZRANGE', P .. 'ready:' .. id, 0, A[3] - 1), {}
    if #lines == 0 then return found end
    call('HSET', claims, worker, A[6], 'of ' .. worker, table.concat(lines, ' '))
    call('SADD', P .. 'claimers:' .. id, worker)
    for at, line in ipairs(lines) do
      call('ZREM', P .. 'ready:' .. id, line)
      call('SADD', held(worker, id), line)
      found[at] = {line, call('HGET', P .. 'ids:' .. id, line), call('HGET', P .. 'bodies:' .. id, line), call('HGET', P .. 'tries:' .. id, line)}
    end
    return found`),
  /** id, now */
  claimedLines: script(`
    local nowMs, count = aliveAt(A[2]), 0
    for _, worker in ipairs(call('SMEMBERS', P .. 'claimers:' .. A[1])) do
      if not dead(worker, nowMs) then count = count + call('SCARD', held(worker, A[1])) end
    end
    return count`),
  /** id, line, outcome, text */
  recordLine: script(`
    local id, line = A[1], A[2]
    if call('HGET', P .. 'batch:' .. id, 'status') ~= 'in_progress' then return 0 end
    if not call('ZSCORE', P .. 'lines:' .. id, line) or call('HEXISTS', P .. 'results:' .. id, line) == 1 then return 0 end
    call('HDEL', P .. 'bodies:' .. id, line)
    call('HDEL', P .. 'tries:' .. id, line)
    call('HSET', P .. 'results:' .. id, line, A[3] .. ' ' .. A[4])
    call('ZREM', P .. 'ready:' .. id, line)
    call('ZREM', P .. 'waiting:' .. id, line)
    unclaim(id, line)
    call('HINCRBY', P .. 'batch:' .. id, A[3], 1)
    return 1`),
  /** id, line, tries and failures, not before */
  returnLine: script(`
    local id, line = A[1], A[2]
    if not call('ZSCORE', P .. 'lines:' .. id, line) or call('HEXISTS', P .. 'results:' .. id, line) == 1 then return 0 end
    call('HSET', P .. 'tries:' .. id, line, A[3])
    call('ZREM', P .. 'ready:' .. id, line)
    call('ZADD', P .. 'waiting:' .. id, A[4], line)
    unclaim(id, line)
    return 1`),
  /** id, after line, lines */
  results: script(`
    local found = {}
    for at, line in ipairs(call('ZRANGEBYSCORE', P .. 'lines:' .. A[1], '(' .. A[2], '+inf', 'LIMIT', 0, A[3])) do
      found[at] = {line, call('HGET', P .. 'ids:' .. A[1], line), call('HGET', P .. 'results:' .. A[1], line)}
    end
    return found`),
  /** id, worker, doc, status, total, completed, failed, then of each file what commitFile takes */
  finishBatch: script(`
    local id = A[1]
    local b = call('HMGET', P .. 'batch:' .. id, 'worker', 'over')
    if b[1] ~= A[2] or b[2] ~= '0' then return 0 end
    for at = 8, #A, 6 do if not uncommitted(A[at]) then return 'gone' end end
    clearLines(id)
    for at = 8, #A, 6 do commitFile(A[at], A[at + 1], A[at + 2], A[at + 3], A[at + 4], A[at + 5]) end
    call('HSET', P .. 'batch:' .. id, 'total', A[5], 'completed', A[6], 'failed', A[7])
    writeBatch(id, A[3], A[4], '1')
    call('HDEL', P .. 'batch:' .. id, 'worker')
    return 1`),
  /** now in seconds, now of lives, batches that are over from before these seconds. Whether there may be more. */
  sweep: script(`
    local nowMs = aliveAt(A[2])
    local swept = 0
    for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'expiring', '-inf', A[1], 'LIMIT', 0, ${AT_ONCE.swept})) do swept = swept + dropFile(id) end
    local writing = call('HGETALL', P .. 'writing')
    for at = 1, #writing, 2 do
      if swept < ${AT_ONCE.swept} and dead(writing[at + 1], nowMs) then swept = swept + dropFile(writing[at]) end
    end
    for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'over', '-inf', '(' .. A[3], 'LIMIT', 0, ${AT_ONCE.swept})) do
      local list = call('HGET', P .. 'batch:' .. id, 'list')
      call('UNLINK', P .. 'batch:' .. id)
      call('ZREM', P .. 'over', id)
      if list then call('ZREM', list, id) end
      swept = swept + 1
    end
    return swept`),
} as const;

function script(steps: string): BatchScript {
  const source = `${PRELUDE}${steps}\n`;
  return { source, sha: createHash('sha1').update(source).digest('hex') };
}
