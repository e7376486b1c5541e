// A load of streams with deadlines over several gateways, each request at its time, whoever is slow; every byte is checked on
// the way. What it says is judged by the client's own clock.
import { setTimeout as delay } from 'node:timers/promises';
import { monotonicMs } from '../../src/engine/real-time.ts';
import { makeSynthetic } from '../../src/workload/synthetic.ts';
import type { Seen } from './checking-client.ts';
import { sendChecked } from './checking-client.ts';
import { MODEL, until } from './rig.ts';
import type { PlannedRequest } from './schedule.ts';

export interface Slo {
  readonly ttftMs: number;
  readonly tpotMs: number;
}

export interface LoadShape {
  /** Begins the ids, and draws the sizes. */
  readonly name: string;
  readonly seed: number;
  readonly ratePerS: number;
  readonly durationS: number;
  readonly promptTokensMean: number;
  readonly outputTokensMean: number;
  readonly slo: Slo;
}

export interface LoadOptions {
  readonly requests: readonly PlannedRequest[];
  readonly urls: readonly string[];
  /** Which of the urls gets it, when it is due. */
  readonly gatewayOf: (request: PlannedRequest) => number;
  readonly headersOf?: (request: PlannedRequest) => Readonly<Record<string, string>>;
  readonly hungAfterMs: number;
}

/** Of the emulator: more than one prompt word a token is never needed. */
const OUTPUT_TOKENS_MAX = 1_000;

export function planLoad({ name, seed, ratePerS, durationS, promptTokensMean, outputTokensMean, slo }: LoadShape): PlannedRequest[] {
  const { requests } = makeSynthetic({
    arrivals: { kind: 'poisson', ratePerS },
    promptTokens: { kind: 'lognormal', meanTokens: promptTokensMean, cv: 0.6 },
    outputTokens: { kind: 'lognormal', meanTokens: outputTokensMean, cv: 0.6 },
    durationS,
    seed,
  });
  return requests.map(({ atMs, promptTokens, outputTokens }, index) => ({
    id: `${name}${index}`,
    atMs,
    gateway: index,
    endpoint: 'chat',
    stream: true,
    asksUsage: false,
    promptWords: Math.max(40, promptTokens),
    outputTokens: Math.min(OUTPUT_TOKENS_MAX, outputTokens),
    slo: { 'x-slo-ttft-ms': String(slo.ttftMs), 'x-slo-tpot-ms': String(slo.tpotMs) },
    leavesAfterMs: null,
  }));
}

export interface Load {
  readonly startedAtMs: number;
  /** Of those that have ended, so far. */
  readonly seen: readonly Seen[];
  /** Resolves when all have. */
  readonly done: Promise<void>;
}

export function startLoad({ requests, urls, gatewayOf, headersOf = () => ({}), hungAfterMs }: LoadOptions): Load {
  const startedAtMs = monotonicMs();
  const seen: Seen[] = [];
  const send = async (): Promise<void> => {
    for (const request of requests) {
      await delay(Math.max(0, startedAtMs + request.atMs - monotonicMs()));
      const gateway = gatewayOf(request);
      sendChecked(request, { url: urls[gateway] ?? '', model: MODEL, gateway, hungAfterMs, serverKind: () => 'emulated', headers: headersOf(request) }, (one) => void seen.push(one));
    }
    await until(() => seen.length >= requests.length, hungAfterMs + 5_000);
  };
  return { startedAtMs, seen, done: send() };
}

export function metSlo({ request, outcome, sentAtMs, firstTokenAtMs, lastTokenAtMs }: Seen, slo: Slo): boolean {
  if (outcome.kind !== 'whole' || firstTokenAtMs === null || lastTokenAtMs === null) return false;
  const tpotMs = request.outputTokens < 2 ? 0 : (lastTokenAtMs - firstTokenAtMs) / (request.outputTokens - 1);
  return firstTokenAtMs - sentAtMs <= slo.ttftMs && tpotMs <= slo.tpotMs;
}

export function attainmentOf(seen: readonly Seen[], slo: Slo): number {
  return seen.length === 0 ? Number.NaN : seen.filter((one) => metSlo(one, slo)).length / seen.length;
}
