// Twice what a fleet can serve in time, over HTTP: what becomes of those that are admitted, what the fleet gets done in time
// beside the most that it could, and who gets it. The same load without admission stands beside it.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { nominalWorkMs } from '../../src/core/nominal-work.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { loadProfile } from '../../src/profile-file.ts';
import { simulate } from '../../src/simulator/simulate.ts';
import type { Seen } from './checking-client.ts';
import type { LoadShape, Slo } from './open-load.ts';
import { attainmentOf, metSlo, planLoad, startLoad } from './open-load.ts';
import { ROOT, startRig } from './rig.ts';
import type { PlannedRequest } from './schedule.ts';

export interface OverloadRun {
  readonly admission: 'refuse' | 'best-effort';
  readonly requests: number;
  readonly admitted: number;
  /** Of those that were not refused. */
  readonly attainment: number;
  /** Output tokens of requests that met their deadlines, and of all. */
  readonly goodputTokensPerS: number;
  readonly throughputTokensPerS: number;
  /**
   * Of the fleet's work, which is what is shared out: prefill and decode time of the requests that were in time, as the profile says. `offPct`: from the
   * tenant's weight, relative to it. Of requests as well; but sizes vary so much that those of a tenant's few hundred are several percent off by chance alone.
   */
  readonly shares: readonly { readonly tenant: string; readonly wanted: number; readonly got: number; readonly offPct: number; readonly ofRequests: number }[];
  /** The longest that a client waited for its answer's end, or for a no. */
  readonly slowestMs: number;
  readonly slowestRefusalMs: number | null;
  readonly hung: number;
}

export interface OverloadResult {
  readonly capacityPerS: number;
  readonly offeredPerS: number;
  readonly withAdmission: OverloadRun;
  readonly without: OverloadRun;
  /** Goodput over everything that the fleet gets done when it never stands still, late or not. */
  readonly goodputOfBest: number;
}

const PROFILE = 'config/profiles/llama-3.1-70b.h100-tp4.json';
const SLO: Slo = { ttftMs: 1_000, tpotMs: 30 };
const REPLICAS = 2;
/** So few that two cores can play what fills them twice over. */
const PLACES = 16;
const LOAD: Omit<LoadShape, 'name' | 'durationS' | 'ratePerS'> = { seed: 4, promptTokensMean: 300, outputTokensMean: 100, slo: SLO };
const WEIGHTS = { one: 1, two: 2, three: 3 } as const;
const TENANTS = Object.entries(WEIGHTS);
const WARM_S = 10;
const HUNG_AFTER_MS = 90_000;
const CAPACITY_S = 60;
/** Without admission all of it is served in the end, which takes as long again. */
const WITHOUT_S_MAX = 12;

export async function measureOverload({ seconds, onLine }: { readonly seconds: number; readonly onLine: (line: string) => void }): Promise<OverloadResult> {
  const capacityPerS = findCapacity();
  const offeredPerS = 2 * capacityPerS;
  onLine(`capacity by the simulator: ${capacityPerS.toFixed(1)} requests/s; offered: ${offeredPerS.toFixed(1)}`);
  const withAdmission = await run('refuse', offeredPerS, seconds);
  onLine(told(withAdmission));
  const without = await run('best-effort', offeredPerS, Math.min(WITHOUT_S_MAX, seconds));
  onLine(told(without));
  const goodputOfBest = withAdmission.goodputTokensPerS / Math.max(without.throughputTokensPerS, withAdmission.throughputTokensPerS);
  return { capacityPerS, offeredPerS, withAdmission, without, goodputOfBest };
}

/** The highest rate, to a percent, at which 99 % are in time without anybody being turned away. */
function findCapacity(): number {
  const profile = loadProfile(join(ROOT, PROFILE));
  const attained = (ratePerS: number): boolean => {
    const requests = planLoad({ ...LOAD, name: 'c', durationS: CAPACITY_S, ratePerS }).map(({ atMs, promptWords, outputTokens }) => ({ atMs, promptTokens: promptWords, outputTokens }));
    const { reports } = simulate({ requests, classes: requests.map(() => ({ name: 'chat', slo: SLO })), replicas: REPLICAS, truth: profile, belief: profile, policy: { kind: 'paceline' }, seed: 1, concurrencyMax: PLACES });
    return reports.filter(({ met }) => met === true).length >= 0.99 * requests.length;
  };
  let [held, tooMuch] = [1, 200];
  while (tooMuch / held > 1.01) {
    const middle = Math.sqrt(held * tooMuch);
    if (attained(middle)) held = middle;
    else tooMuch = middle;
  }
  return held;
}

async function run(admission: OverloadRun['admission'], ratePerS: number, seconds: number): Promise<OverloadRun> {
  const rig = await startRig({
    profile: PROFILE,
    nodes: [REPLICAS],
    gateways: 1,
    servers: {},
    ttlMs: 3_000,
    replica: { concurrencyMax: PLACES },
    config: { admission: { infeasible: admission }, tenants: TENANTS.map(([name, weight]) => ({ name, weight, apiKeySha256: [createHash('sha256').update(keyOf(name)).digest('hex')] })) },
  });
  try {
    const requests = planLoad({ ...LOAD, name: 'o', ratePerS, durationS: WARM_S + seconds });
    const load = startLoad({ requests, urls: rig.gateways.map(({ url }) => url), gatewayOf: () => 0, headersOf: (request) => ({ authorization: `Bearer ${keyOf(tenantOf(request))}` }), hungAfterMs: HUNG_AFTER_MS });
    await load.done;
    return judged(admission, load.seen, { fromMs: load.startedAtMs + WARM_S * 1_000, toMs: load.startedAtMs + (WARM_S + seconds) * 1_000 });
  } finally {
    await rig.close();
  }
}

/** All of them ask for the same. */
function tenantOf({ gateway }: PlannedRequest): string {
  return TENANTS[gateway % TENANTS.length]?.[0] ?? '';
}

function keyOf(tenant: string): string {
  return `sk-of-tenant-${tenant}`;
}

interface Stretch {
  readonly fromMs: number;
  readonly toMs: number;
}

function judged(admission: OverloadRun['admission'], all: readonly Seen[], stretch: Stretch): OverloadRun {
  const seen = all.filter(({ sentAtMs }) => sentAtMs >= stretch.fromMs);
  const refused = seen.filter(({ outcome }) => outcome.kind === 'refused' && outcome.status === 429);
  const admitted = seen.filter((one) => !refused.includes(one));
  const tokensPerS = (of: readonly Seen[]): number => of.reduce((sum, one) => sum + tokensWithin(one, stretch), 0) / ((stretch.toMs - stretch.fromMs) / 1_000);
  const inTime = all.filter((one) => metSlo(one, SLO));
  const goodput = tokensPerS(inTime);
  const weights = TENANTS.reduce((sum, [, weight]) => sum + weight, 0);
  const model = createPerformanceModel(loadProfile(join(ROOT, PROFILE)));
  const workOf = (of: readonly Seen[]): number => startedWithin(of, stretch).reduce((sum, { request }) => sum + nominalWorkMs(model, request.promptWords, request.outputTokens), 0);
  return {
    admission,
    requests: seen.length,
    admitted: admitted.length,
    attainment: attainmentOf(admitted, SLO),
    goodputTokensPerS: goodput,
    throughputTokensPerS: tokensPerS(all),
    shares: TENANTS.map(([tenant, weight]) => {
      const wanted = weight / weights;
      const ofTenant = inTime.filter(({ request }) => tenantOf(request) === tenant);
      const got = workOf(ofTenant) / workOf(inTime);
      return { tenant, wanted, got, offPct: 100 * (got / wanted - 1), ofRequests: startedWithin(ofTenant, stretch).length / startedWithin(inTime, stretch).length };
    }),
    slowestMs: Math.max(...all.map(({ sentAtMs, endedAtMs }) => endedAtMs - sentAtMs)),
    slowestRefusalMs: refused.length === 0 ? null : Math.max(...refused.map(({ sentAtMs, endedAtMs }) => endedAtMs - sentAtMs)),
    hung: all.filter(({ outcome }) => outcome.kind === 'hung').length,
  };
}

function startedWithin(seen: readonly Seen[], { fromMs, toMs }: Stretch): readonly Seen[] {
  return seen.filter(({ firstTokenAtMs }) => firstTokenAtMs !== null && firstTokenAtMs >= fromMs && firstTokenAtMs < toMs);
}

/** As if its tokens came evenly from the first to the last. */
function tokensWithin({ outcome, firstTokenAtMs, lastTokenAtMs }: Seen, { fromMs, toMs }: Stretch): number {
  if (outcome.kind !== 'whole' || firstTokenAtMs === null || lastTokenAtMs === null) return 0;
  const lengthMs = lastTokenAtMs - firstTokenAtMs;
  if (lengthMs <= 0) return firstTokenAtMs >= fromMs && firstTokenAtMs < toMs ? outcome.tokens : 0;
  return (outcome.tokens * Math.max(0, Math.min(toMs, lastTokenAtMs) - Math.max(fromMs, firstTokenAtMs))) / lengthMs;
}

function told({ admission, requests, admitted, attainment, goodputTokensPerS, throughputTokensPerS, shares, slowestMs, slowestRefusalMs, hung }: OverloadRun): string {
  const ofShares = shares.map(({ tenant, wanted, got, ofRequests }) => `${tenant} ${(100 * got).toFixed(1)} % of the work (${(100 * ofRequests).toFixed(1)} % of requests; weight ${(100 * wanted).toFixed(1)} %)`).join(', ');
  const refusal = slowestRefusalMs === null ? '' : `, slowest refusal ${slowestRefusalMs.toFixed(0)} ms`;
  return `${admission === 'refuse' ? 'with admission' : 'without'}: ${admitted} of ${requests} admitted, ${(100 * attainment).toFixed(1)} % of them in time; ${goodputTokensPerS.toFixed(0)} of ${throughputTokensPerS.toFixed(0)} tokens/s in time; shares ${ofShares}; slowest ${(slowestMs / 1_000).toFixed(1)} s${refusal}; ${hung} hung`;
}
