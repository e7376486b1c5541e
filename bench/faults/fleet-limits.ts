// Whether limits of a tenant hold for all gateways together: three of them, each sent the same part of three times what is
// allowed, by one tenant for each kind of limit.
import { createHash } from 'node:crypto';
import type { Seen } from './checking-client.ts';
import { emulatedExecutions } from './executions.ts';
import { promptTokensOf } from './expected-text.ts';
import { startLoad } from './open-load.ts';
import type { Rig } from './rig.ts';
import { startRig } from './rig.ts';
import type { PlannedRequest } from './schedule.ts';

export interface LimitsResult {
  readonly seconds: number;
  readonly limits: readonly LimitResult[];
  /** Of all of them, the largest. */
  readonly errorPct: number;
}

export interface LimitResult {
  readonly limit: 'requestsPerMinute' | 'tokensPerMinute' | 'concurrencyMax';
  readonly allowed: number;
  /** The most in any minute, or at any moment. */
  readonly most: number;
  readonly offered: number;
  readonly refused: number;
  /** Neither served nor refused for the limit. */
  readonly failed: number;
}

const LIMITS = { requestsPerMinute: 600, tokensPerMinute: 60_000, concurrencyMax: 50 } as const;
type Limit = keyof typeof LIMITS;
const TENANTS = Object.keys(LIMITS) as Limit[];
/** Of what each limit lets through in half of the time. */
const TIMES = 3;
const OUTPUT_TOKENS = { requestsPerMinute: 4, tokensPerMinute: 80, concurrencyMax: 200 } as const;
const PROMPT_WORDS = 40;
/** What an answer may take is reserved, so it is near to what it does take. */
const MAX_TOKENS_MORE = 20;
/** Three times what comes and goes of 50 at once, each of some two seconds. */
const CONCURRENT_RATE_PER_S = 75;
const GATEWAYS = 3;
const MINUTE_MS = 60_000;
const HUNG_AFTER_MS = 30_000;

export async function measureLimits({ seconds }: { readonly seconds: number }): Promise<LimitsResult> {
  const rig = await startRig({
    profile: 'config/profiles/llama-3.1-8b.h200.json',
    nodes: [4],
    gateways: GATEWAYS,
    servers: {},
    ttlMs: 3_000,
    config: { tenants: TENANTS.map((limit) => ({ name: limit, apiKeySha256: [createHash('sha256').update(keyOf(limit)).digest('hex')], limits: { [limit]: LIMITS[limit] } })) },
  });
  try {
    const requests = TENANTS.flatMap((limit) => offered(limit, seconds)).toSorted((one, other) => one.atMs - other.atMs);
    const load = startLoad({ requests, urls: rig.gateways.map(({ url }) => url), gatewayOf: ({ gateway }) => gateway, headersOf: (request) => ({ authorization: `Bearer ${keyOf(limitOf(request))}` }), hungAfterMs: HUNG_AFTER_MS });
    await load.done;
    const limits = TENANTS.map((limit) => judged(limit, load.seen.filter(({ request }) => limitOf(request) === limit), rig));
    return { seconds, limits, errorPct: Math.max(...limits.map(({ allowed, most }) => 100 * Math.abs(most / allowed - 1))) };
  } finally {
    await rig.close();
  }
}

/** Evenly over the gateways and the time. */
function offered(limit: Limit, seconds: number): PlannedRequest[] {
  const perS: Readonly<Record<Limit, number>> = {
    requestsPerMinute: (TIMES * LIMITS.requestsPerMinute) / Math.min(60, seconds),
    tokensPerMinute: (TIMES * LIMITS.tokensPerMinute) / ((PROMPT_WORDS + OUTPUT_TOKENS.tokensPerMinute) * Math.min(60, seconds)),
    concurrencyMax: CONCURRENT_RATE_PER_S,
  };
  return Array.from({ length: Math.round(perS[limit] * seconds) }, (_, index) => ({
    id: `${limit.slice(0, 1)}-${index}`,
    atMs: (index / perS[limit]) * 1_000,
    gateway: index % GATEWAYS,
    endpoint: 'completions',
    stream: false,
    asksUsage: false,
    promptWords: PROMPT_WORDS,
    outputTokens: OUTPUT_TOKENS[limit],
    maxTokens: OUTPUT_TOKENS[limit] + MAX_TOKENS_MORE,
    slo: { 'x-slo-ttft-ms': '2000', 'x-slo-tpot-ms': '25' },
    leavesAfterMs: null,
  }));
}

/** By the letter that its ids begin with: words of a prompt that are short are one token each. */
function limitOf({ id }: PlannedRequest): Limit {
  return TENANTS.find((limit) => limit.startsWith(id.slice(0, 1))) as Limit;
}

function keyOf(limit: Limit): string {
  return `sk-${limit}`;
}

function judged(limit: Limit, seen: readonly Seen[], rig: Rig): LimitResult {
  const refused = seen.filter(({ outcome }) => outcome.kind === 'refused' && outcome.status === 429);
  const served = seen.filter(({ outcome }) => outcome.kind === 'whole');
  return {
    limit,
    allowed: LIMITS[limit],
    most: limit === 'concurrencyMax' ? mostAtOnce(rig, new Set(served.map(({ request }) => request.id))) : mostInAMinute(served, limit === 'requestsPerMinute' ? () => 1 : ({ request }) => promptTokensOf(request) + request.outputTokens),
    offered: seen.length,
    refused: refused.length,
    failed: seen.length - refused.length - served.length,
  };
}

function mostInAMinute(served: readonly Seen[], size: (one: Seen) => number): number {
  const inOrder = served.toSorted((one, other) => one.sentAtMs - other.sentAtMs);
  let [most, sum, first] = [0, 0, 0];
  for (const one of inOrder) {
    sum += size(one);
    for (let oldest = inOrder[first]; oldest !== undefined && one.sentAtMs - oldest.sentAtMs >= MINUTE_MS; oldest = inOrder[first]) {
      sum -= size(oldest);
      first += 1;
    }
    most = Math.max(most, sum);
  }
  return most;
}

/** By the servers' own logs: what a gateway holds is under way there, but for a moment at either end. */
function mostAtOnce({ nodes }: Rig, ids: ReadonlySet<string>): number {
  const executions = nodes.flatMap(({ requestLog }, index) => emulatedExecutions(requestLog, `node-${index}`)).filter(({ requestId }) => ids.has(requestId));
  const steps = executions.flatMap(({ acceptedAtMs, end }) => [{ atMs: acceptedAtMs, by: 1 }, { atMs: end?.atMs ?? Number.POSITIVE_INFINITY, by: -1 }]).sort((one, other) => one.atMs - other.atMs || one.by - other.by);
  let [now, most] = [0, 0];
  for (const { by } of steps) {
    now += by;
    most = Math.max(most, now);
  }
  return most;
}
