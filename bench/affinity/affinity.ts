// npm run -s bench:affinity: what it is worth to know which replica has read a prompt's beginning before. The same requests,
// machines and belief in every row; see ../results/affinity/README.md.
//
// --kv-times 8: as if the servers had eight times the memory for keys and values, as some keep them in the host's.
//
//   node bench/affinity/affinity.ts [--profiles a,b] [--loads low,middle,high] [--beliefs right,…] [--replicas 4] [--requests 3000] [--kv-times 1] [--generated] [--json]
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { createBelievedCache } from '../../src/core/believed-cache.ts';
import { ALL_MECHANISMS } from '../../src/core/mechanisms.ts';
import { createPhysics } from '../../src/engine/physics.ts';
import { createPerformanceModel, type PerformanceModel } from '../../src/frontier/performance-model.ts';
import { loadProfile } from '../../src/profile-file.ts';
import { feasibleAlone } from '../../src/simulator/feasibility.ts';
import { runReport } from '../../src/simulator/run-report.ts';
import { simulate, type SimulationOptions } from '../../src/simulator/simulate.ts';
import { PREFIX_BLOCK_TOKENS } from '../../src/workload/prefix-block.ts';
import { BELIEFS, type Belief, fleetCapacityPerS, predictionOf, sharedOf } from '../energy/cell.ts';
import { chosen, numberOf, refusing } from '../energy/options.ts';
import { LOADS, type Load, type LoadedWorkload, type Source } from '../energy/workloads.ts';
import { conversations } from './conversations.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const PROFILES = ['llama-3.1-70b.h100-tp4', 'llama-3.1-8b.h200'] as const;

const VARIANTS = {
  'max-clock, least-loaded': { policy: { kind: 'max-clock' } },
  'paceline, without affinity': { policy: { kind: 'paceline' }, mechanisms: { ...ALL_MECHANISMS, prefixAffinity: false } },
  'paceline, least-loaded': { policy: { kind: 'paceline' }, routing: 'least-loaded' },
  'paceline, with affinity': { policy: { kind: 'paceline' } },
} as const satisfies Record<string, Pick<SimulationOptions, 'policy' | 'mechanisms' | 'routing'>>;

interface Options {
  readonly replicas: number;
  readonly requests: number;
  readonly seed: number;
}

interface Row {
  readonly profile: string;
  readonly load: Load;
  readonly belief: Belief;
  readonly variant: string;
  readonly requests: number;
  readonly ratePerS: number;
  /** Of all prompt tokens: found in the replicas' caches; what one cache as large as all of them together would have had; and one that never forgets. */
  readonly cachedShare: number;
  readonly cachedSharePooled: number;
  readonly repeatedShare: number;
  readonly ttftP50Ms: number;
  readonly ttftP99Ms: number;
  readonly ttftErrorPct: number;
  readonly attainment: number;
  readonly energyJ: number;
  readonly joulesPerOutputToken: number;
}

/** Share of the prompt tokens, in whole blocks, that one cache of such a size would have had if it were sent everything. */
function repeatedShare(requests: SimulationOptions['requests'], capacityTokens: number): number {
  const cache = createBelievedCache(capacityTokens, Number.POSITIVE_INFINITY);
  let repeated = 0;
  let all = 0;
  for (const { promptTokens, prefixBlocks = [] } of requests) {
    const whole = prefixBlocks.slice(0, Math.floor((promptTokens - 1) / PREFIX_BLOCK_TOKENS));
    repeated += cache.hits(whole) * PREFIX_BLOCK_TOKENS;
    all += promptTokens;
    cache.keep(whole, PREFIX_BLOCK_TOKENS);
  }
  return all === 0 ? 0 : repeated / all;
}

/** So many requests of the source from its start, at that rate: caches have to fill before they are worth anything. */
function firstOf({ requests: all, recorded, leftOut, classes, lengthS }: Source, wanted: number, ratePerS: number): LoadedWorkload {
  const speed = ratePerS / (all.length / lengthS);
  const requests = all.slice(0, wanted).map((request) => ({ ...request, atMs: request.atMs / speed }));
  return { recorded, requests, ratePerS, durationS: (requests.at(-1)?.atMs ?? 0) / 1000, leftOut, classes };
}

function rowsOf(profile: string, model: PerformanceModel, source: Source, load: Load, belief: Belief, ratePerS: number, options: Options): readonly Row[] {
  const workload = firstOf(source, options.requests, ratePerS);
  const shared = sharedOf(model, workload, belief, { ...options, clairvoyantEffort: 0 });
  const feasible = feasibleAlone([createPhysics(model.profile, BELIEFS[belief].scale)], shared.requests, shared.classes);
  const shares = { cachedSharePooled: repeatedShare(workload.requests, options.replicas * model.profile.serving.kvTokens), repeatedShare: repeatedShare(workload.requests, Number.POSITIVE_INFINITY) };
  return Object.entries(VARIANTS).map(([variant, how]) => {
    const run = simulate({ ...shared, ...how });
    const report = runReport({ policy: variant, ...options }, run, feasible);
    return {
      profile,
      load,
      belief,
      variant,
      requests: workload.requests.length,
      ratePerS,
      cachedShare: report.cachedPromptShare,
      ...shares,
      ttftP50Ms: report.ttftMs.p50 ?? 0,
      ttftP99Ms: report.ttftMs.p99 ?? 0,
      ttftErrorPct: predictionOf(run).ttftErrorPct,
      attainment: report.attainmentOfFeasible,
      energyJ: report.energyJ,
      joulesPerOutputToken: report.joulesPerOutputToken ?? 0,
    };
  });
}

function formatRows(rows: readonly Row[]): string {
  const lines: string[] = [];
  let before = '';
  for (const row of rows) {
    const cell = `${row.profile}, ${row.load} load (${row.ratePerS.toFixed(2)}/s, ${row.requests} requests), belief ${row.belief}; of the prompt tokens ${(100 * row.repeatedShare).toFixed(1)} % are repeated, ${(100 * row.cachedSharePooled).toFixed(1)} % within what all caches hold`;
    if (cell !== before) lines.push(...(before === '' ? [] : ['']), cell, `${''.padEnd(28)}  cached %  TTFT p50 ms  p99 ms  error %  attainment %   energy kJ  J/token`);
    before = cell;
    const { variant, cachedShare, ttftP50Ms, ttftP99Ms, ttftErrorPct, attainment, energyJ, joulesPerOutputToken } = row;
    const columns = [(100 * cachedShare).toFixed(1).padStart(8), ttftP50Ms.toFixed(0).padStart(11), ttftP99Ms.toFixed(0).padStart(6), ttftErrorPct.toFixed(1).padStart(7), (100 * attainment).toFixed(2).padStart(12), (energyJ / 1000).toFixed(1).padStart(10), joulesPerOutputToken.toFixed(3).padStart(7)];
    lines.push(`${variant.padEnd(28)}  ${columns.join('  ')}`);
  }
  return lines.join('\n');
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      profiles: { type: 'string', default: PROFILES.join(',') },
      loads: { type: 'string', default: Object.keys(LOADS).join(',') },
      beliefs: { type: 'string', default: 'right' },
      replicas: { type: 'string', default: '4' },
      requests: { type: 'string', default: '3000' },
      seed: { type: 'string', default: '1' },
      'kv-times': { type: 'string', default: '1' },
      generated: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const options: Options = { requests: numberOf('requests', values.requests, { least: 1, most: 1e6, whole: true }), replicas: numberOf('replicas', values.replicas, { least: 1, most: 1000, whole: true }), seed: numberOf('seed', values.seed, { least: 0, most: 1e9, whole: true }) };
  const loads = chosen('loads', values.loads, Object.keys(LOADS) as Load[]);
  const beliefs = chosen('beliefs', values.beliefs, Object.keys(BELIEFS) as Belief[]);
  const kvTimes = numberOf('kv-times', values['kv-times'], { least: 1, most: 1000, whole: true });
  const rows: Row[] = [];
  for (const profile of chosen('profiles', values.profiles, PROFILES)) {
    const own = loadProfile(join(ROOT, `config/profiles/${profile}.json`));
    const model = createPerformanceModel({ ...own, serving: { ...own.serving, kvTokens: own.serving.kvTokens * kvTimes } });
    const source = await conversations(model, options.seed, values.generated);
    if (rows.length === 0 && !source.recorded) process.stderr.write('generated conversations\n');
    const capacityPerS = fleetCapacityPerS(model, source, { ...options, clairvoyantEffort: 0 });
    for (const belief of beliefs) for (const load of loads) rows.push(...rowsOf(profile, model, source, load, belief, LOADS[load] * capacityPerS, options));
  }
  process.stdout.write(values.json ? `${JSON.stringify(rows, null, 2)}\n` : `${formatRows(rows)}\n`);
}

await refusing(main);
