// What Redis does for the limits, in Lua: one script takes what a tenant's requests want, whole or not at all, and one says
// that this gateway is alive. Sources, keys and the reading of answers; who asks, and what if nobody answers, is `fleet-limits.ts`.
//
// Redis' own TIME is the clock of all gateways. Keys have the fleet's hash tag, so that they share a server of a Cluster.
import { createHash } from 'node:crypto';
import { WINDOW_SLOTS } from '../core/sliding-window.ts';

export interface Script {
  readonly source: string;
  readonly sha: string;
}

/** What a gateway that was killed holds is free again after so long. */
export const PLACES_LIFE_MS = 5_000;
/** After a day whose budget it was: until the end of the next one. */
const ENERGY_LIFE_MS = 2 * 86_400_000;
const WINDOW_LIFE_MS = 2 * WINDOW_SLOTS * 1_000;

/** What a tenant asks in one call; limits of -1 are none. */
export interface TenantCall {
  readonly tenant: string;
  readonly limits: { readonly requests: number | null; readonly tokens: number | null; readonly concurrency: number | null; readonly joulesPerDay: number | null };
  readonly refuseAtEnd: boolean;
  /** Absolute where nothing else of this tenant is under way, else how many were freed since the last call. */
  readonly places: { readonly kind: 'held' | 'freed'; readonly count: number };
  readonly energyJ: number;
  /** By second of Redis' clock: what was taken without asking, or is given back. */
  readonly deltas: readonly { readonly atS: number; readonly requests: number; readonly tokens: number }[];
  /** Tokens that each request wants, in the order of their coming; 0: it is counted, and wants neither tokens nor a place. */
  readonly wanted: readonly number[];
}

export type Verdict = 'admitted' | 'requests' | 'tokens' | 'concurrency' | 'energy';

export interface TenantAnswer {
  /** Redis' clock, unix milliseconds. */
  readonly nowMs: number;
  readonly verdicts: readonly Verdict[];
  readonly spentJ: number;
  /** Held by all gateways, where there is a limit on it. */
  readonly held: number;
  readonly requestSlots: readonly number[];
  readonly tokenSlots: readonly number[];
}

// Slots are a ring of seconds in fields r0…, k0…; s is the newest second. A clock that steps back stands still, by more than a window it
// begins anew. The first write is one
// that a full memory refuses: once another has been made, Redis lets a script go on. A place's field is count:expiry. Answers carry the slots, for what is left and when more is follows from them.
const TENANT = `
local N = ${WINDOW_SLOTS}
local t = redis.call('TIME')
local nowMs = t[1] * 1000 + math.floor(t[2] / 1000)
local now = tonumber(t[1])
local h = redis.call('HMGET', KEYS[1], 's', 'd', 'J')
redis.call('HSET', KEYS[1], 'd', h[2] or '0')
local s, day, J = tonumber(h[1]) or 0, tonumber(h[2]) or 0, tonumber(h[3]) or 0
local r, k = {}, {}
for i = 0, N - 1 do r[i] = 0; k[i] = 0 end
if s - now >= N then s = 0 end
if s > now then now = s end
if now - s < N then
  local f = {}
  for i = 0, N - 1 do f[2 * i + 1] = 'r' .. i; f[2 * i + 2] = 'k' .. i end
  local v = redis.call('HMGET', KEYS[1], unpack(f))
  for sec = now - N + 1, s do
    local i = sec % N
    r[i] = tonumber(v[2 * i + 1]) or 0
    k[i] = tonumber(v[2 * i + 2]) or 0
  end
end
local me, life = ARGV[1], tonumber(ARGV[2])
local maxR, maxT, maxC, maxJ = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local refuse = ARGV[7] == '1'
local at = 11
local touched = {}
for _ = 1, tonumber(ARGV[11]) do
  local sec, dr, dk = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  at = at + 3
  if sec > now then sec = now end
  if sec > now - N then
    local i = sec % N
    r[i] = math.max(0, r[i] + dr)
    k[i] = math.max(0, k[i] + dk)
    touched[i] = true
  end
end
local R, K = 0, 0
for i = 0, N - 1 do R = R + r[i]; K = K + k[i] end
local today = math.floor(now / 86400)
if day ~= today then day = today; J = 0 end
J = J + tonumber(ARGV[10])
local others, own = 0, 0
if maxC >= 0 then
  local p = redis.call('HGETALL', KEYS[2])
  local stored = nil
  for j = 1, #p, 2 do
    local c, e = string.match(p[j + 1], '^(%d+):(%d+)$')
    if c == nil or tonumber(e) <= nowMs then redis.call('HDEL', KEYS[2], p[j])
    elseif p[j] == me then stored = tonumber(c)
    else others = others + tonumber(c) end
  end
  if ARGV[8] == 'held' then own = tonumber(ARGV[9]) else own = math.max(0, (stored or 0) - tonumber(ARGV[9])) end
end
local verdicts = {}
local slot = now % N
for j = at + 2, at + 1 + tonumber(ARGV[at + 1]) do
  local want = tonumber(ARGV[j])
  local verdict = 'a'
  if maxJ >= 0 and refuse and J >= maxJ then verdict = 'e'
  elseif want > 0 and maxC >= 0 and others + own >= maxC then verdict = 'c'
  elseif maxR >= 0 and R + 1 > maxR then verdict = 'r'
  elseif want > 0 and maxT >= 0 and K + want > maxT then verdict = 't'
  else
    R = R + 1; K = K + want; own = own + 1
    r[slot] = r[slot] + 1; k[slot] = k[slot] + want
    touched[slot] = true
  end
  verdicts[#verdicts + 1] = verdict
end
if now - s >= N then redis.call('DEL', KEYS[1]) else
  local gone = {}
  for sec = s + 1, now do gone[#gone + 1] = 'r' .. sec % N; gone[#gone + 1] = 'k' .. sec % N end
  if #gone > 0 then redis.call('HDEL', KEYS[1], unpack(gone)) end
end
local w = { 's', string.format('%.0f', now), 'd', string.format('%.0f', day), 'J', string.format('%.6f', J) }
for i in pairs(touched) do
  w[#w + 1] = 'r' .. i; w[#w + 1] = string.format('%.0f', r[i])
  w[#w + 1] = 'k' .. i; w[#w + 1] = string.format('%.0f', k[i])
end
redis.call('HSET', KEYS[1], unpack(w))
redis.call('PEXPIRE', KEYS[1], maxJ >= 0 and ${ENERGY_LIFE_MS} or ${WINDOW_LIFE_MS})
if maxC >= 0 then
  if own > 0 then
    redis.call('HSET', KEYS[2], me, string.format('%.0f:%.0f', own, nowMs + life))
    redis.call('PEXPIRE', KEYS[2], life)
  else redis.call('HDEL', KEYS[2], me) end
end
local rs, ks = {}, {}
for i = 1, N do
  rs[i] = string.format('%.0f', r[(now + i) % N])
  ks[i] = string.format('%.0f', k[(now + i) % N])
end
return { string.format('%.0f', nowMs), table.concat(verdicts), string.format('%.6f', J), string.format('%.0f', others + own), table.concat(rs, ' '), table.concat(ks, ' ') }
`;

const ALIVE = `
local t = redis.call('TIME')
local nowMs = t[1] * 1000 + math.floor(t[2] / 1000)
local life = tonumber(ARGV[2])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', nowMs + life))
redis.call('PEXPIRE', KEYS[1], math.max(life, ${PLACES_LIFE_MS}))
local g = redis.call('HGETALL', KEYS[1])
local alive = 0
for j = 1, #g, 2 do
  if (tonumber(g[j + 1]) or 0) <= nowMs then redis.call('HDEL', KEYS[1], g[j]) else alive = alive + 1 end
end
return { string.format('%.0f', nowMs), alive }
`;

export const TENANT_SCRIPT: Script = scriptOf(TENANT);
export const ALIVE_SCRIPT: Script = scriptOf(ALIVE);

export function tenantKeys(fleet: string, tenant: string): readonly string[] {
  return [`paceline:{${fleet}}:limits:1:${tenant}`, `paceline:{${fleet}}:places:1:${tenant}`];
}
export function aliveKeys(fleet: string): readonly string[] {
  return [`paceline:{${fleet}}:gateways:1`];
}

export function tenantArguments(gateway: string, { limits, refuseAtEnd, places, energyJ, deltas, wanted }: TenantCall): string[] {
  const numbers = [
    ...[limits.requests, limits.tokens, limits.concurrency, limits.joulesPerDay].map((limit) => limit ?? -1),
    refuseAtEnd ? 1 : 0, places.kind, places.count, energyJ.toFixed(6),
    deltas.length, ...deltas.flatMap(({ atS, requests, tokens }) => [atS, requests, tokens]),
    wanted.length, ...wanted,
  ];
  return [gateway, String(PLACES_LIFE_MS), ...numbers.map(String)];
}

const VERDICTS: Readonly<Record<string, Verdict>> = { a: 'admitted', r: 'requests', t: 'tokens', c: 'concurrency', e: 'energy' };

/** `null` where it is not what the script answers. */
export function readTenantAnswer(reply: unknown, wanted: number): TenantAnswer | null {
  if (!Array.isArray(reply) || reply.length !== 6) return null;
  const [now, codes, spent, held, requests, tokens] = reply.map(String) as [string, string, string, string, string, string];
  const verdicts = [...codes].map((code) => VERDICTS[code]);
  const [nowMs, spentJ, heldCount] = [Number(now), Number(spent), Number(held)];
  const [requestSlots, tokenSlots] = [requests, tokens].map((text) => text.split(' ').map(Number)) as [number[], number[]];
  const whole = verdicts.length === wanted && !verdicts.includes(undefined) && requestSlots.length === WINDOW_SLOTS && tokenSlots.length === WINDOW_SLOTS;
  if (!whole || ![nowMs, spentJ, heldCount, ...requestSlots, ...tokenSlots].every(Number.isFinite)) return null;
  return { nowMs, verdicts: verdicts as Verdict[], spentJ, held: heldCount, requestSlots, tokenSlots };
}

/** `null` where it is not what the script answers. */
export function readAliveAnswer(reply: unknown): { readonly nowMs: number; readonly gateways: number } | null {
  if (!Array.isArray(reply)) return null;
  const [nowMs, gateways] = [Number(reply[0]), Number(reply[1])];
  return Number.isFinite(nowMs) && Number.isFinite(gateways) ? { nowMs, gateways } : null;
}

function scriptOf(source: string): Script {
  return { source, sha: createHash('sha1').update(source).digest('hex') };
}
