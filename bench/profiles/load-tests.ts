// The measured load tests (H100, Llama-70B), and the same tests run on the emulated engine with a profile as its truth.
import { readFileSync } from 'node:fs';
import type { Profile } from '../../src/frontier/profile.ts';
import { limitsOf } from '../../src/engine/batching.ts';
import { createPhysics } from '../../src/engine/physics.ts';
import { createRandom } from '../../src/random/random.ts';
import { createEmulatedReplica } from '../../src/engine/replica.ts';
import { quantile } from './queue-simulation.ts';

/** What one load test gave; power is of the whole group. */
export interface Outcome {
  readonly powerW: number;
  readonly ttftP99Ms: number;
  readonly tpotP99Ms: number;
}

/** One row of the table. */
export interface LoadTestRow extends Outcome {
  readonly devices: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly clockMhz: number;
  readonly requestsPerS: number;
}

const HEADER = 'tp,input_len,output_len,freq_mhz,rps,power_w_sum,ttft_p99_s,tpot_p99_s';

/** The rows with so many devices. */
export function readLoadTests(path: string, devices: number): LoadTestRow[] {
  const [header, ...lines] = readFileSync(path, 'utf8').trim().split(/\r?\n/);
  if (header !== HEADER) throw new Error(`${path}: got the header "${header}", want "${HEADER}"`);
  return lines
    .map((line): LoadTestRow => {
      const [tp, promptTokens, outputTokens, clockMhz, requestsPerS, powerW, ttftS, tpotS] = line.split(',').map(Number) as [number, number, number, number, number, number, number, number];
      return { devices: tp, promptTokens, outputTokens, clockMhz, requestsPerS, powerW, ttftP99Ms: ttftS * 1000, tpotP99Ms: tpotS * 1000 };
    })
    .filter((row) => row.devices === devices);
}

/** Poisson arrivals of equal requests on an emulated replica locked at the row's clock; the first tenth is not counted in the latencies. */
export function emulatedOutcome(profile: Profile, row: LoadTestRow, requests: number, seed: number): Outcome {
  const { promptTokens, outputTokens, clockMhz, requestsPerS } = row;
  const random = createRandom(seed, 'load test');
  const arrivedAtMs: number[] = [];
  const firstTokenAtMs: number[] = [];
  const ttftsMs: number[] = [];
  const tpotsMs: number[] = [];
  const replica = createEmulatedReplica<number>({
    physics: createPhysics(profile),
    seed,
    startMs: 0,
    initial: Array.from({ length: profile.deviceGroup.devices }, () => ({ lock: { minMhz: clockMhz, maxMhz: clockMhz }, energyJ: 0 })),
    limits: limitsOf(profile),
    tokenEvents: 'first-and-last',
    deliver: (events, atMs) => {
      for (const { kind, id, outputTokens: tokens } of events) {
        if (tokens === 1) firstTokenAtMs[id] = atMs;
        if (kind !== 'finished' || id < requests / 10) continue;
        ttftsMs.push((firstTokenAtMs[id] as number) - (arrivedAtMs[id] as number));
        tpotsMs.push((atMs - (firstTokenAtMs[id] as number)) / (outputTokens - 1));
      }
    },
  });
  let nowMs = 0;
  for (let id = 0; id < requests; id++) {
    nowMs += (-Math.log(1 - random()) / requestsPerS) * 1000;
    arrivedAtMs.push(nowMs);
    const submission = replica.submit({ id, promptTokens, outputTokens }, nowMs);
    if (submission.kind === 'rejected') throw new Error(`the emulated engine refused request ${id} of the test at ${clockMhz} MHz and ${requestsPerS}/s: ${submission.reason}`);
  }
  for (let nextMs = replica.nextEventAtMs(); Number.isFinite(nextMs); nextMs = replica.nextEventAtMs()) {
    nowMs = nextMs;
    replica.advanceTo(nextMs);
  }
  return { powerW: (1000 * replica.energyJ()) / nowMs, ttftP99Ms: quantile(ttftsMs, 0.99), tpotP99Ms: quantile(tpotsMs, 0.99) };
}
