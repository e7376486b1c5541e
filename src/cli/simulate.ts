// paceline simulate: the gateway's own decisions on virtual time over modelled replicas. What-if questions in seconds.
import { ProfileFileError, loadProfile } from '../profile-file.ts';
import type { Profile } from '../frontier/profile.ts';
import { simulateClairvoyant } from '../simulator/clairvoyant.ts';
import { formatRuns } from '../simulator/format-runs.ts';
import { lowerBoundReport } from '../simulator/lower-bound.ts';
import { RIVALS, isRivalName } from '../simulator/rivals/rivals.ts';
import { type RunReport, runReport } from '../simulator/run-report.ts';
import { type SimulationOptions, simulate } from '../simulator/simulate.ts';
import { BEST_EFFORT, drawClasses } from '../workload/slo-classes.ts';
import { UsageError, defineCommand } from './command.ts';
import { WORKLOAD_OPTIONS, readWorkload } from './workload-options.ts';

const POLICIES = `max-clock, static:<MHz>, best-static, paceline, clairvoyant, lower-bound, ${Object.keys(RIVALS).join(', ')} (these also with their own margin: <name>@0.1)`;
/** Runs are compared over the arrivals and this much more, unless one takes longer. */
const WINDOW_TAIL_S = 30;
/** Below two percent of error in either way nobody can tell a machine from its profile. */
const ERROR_PCT = { min: -90, max: 900 };
const PROGRESS_EVERY_MS = 500;

export const command = defineCommand({
  name: 'simulate',
  summary: "Plays a workload on virtual time: the gateway's own decisions over modelled replicas.",
  options: {
    ...WORKLOAD_OPTIONS,
    policy: { type: 'text', value: 'LIST', help: `separated by commas: ${POLICIES}`, default: 'max-clock,best-static,paceline' },
    replicas: { type: 'number', value: 'N', help: "replicas, each on the profile's device group", default: 4, min: 1, max: 10_000, integer: true },
    truth: { type: 'text', value: 'FILE', help: 'profile that the machines follow', default: 'config/profiles/llama-3.1-70b.h100-tp4.json' },
    belief: { type: 'text', value: 'FILE', help: 'profile that the gateway believes; default: the truth' },
    'time-error': { type: 'number', value: 'PCT', help: 'the truth is slower than its profile by this; negative: faster', default: 0, ...ERROR_PCT },
    'power-error': { type: 'number', value: 'PCT', help: 'the truth draws more than its profile by this; negative: less', default: 0, ...ERROR_PCT },
    routing: { type: 'text', value: 'HOW', help: "of all policies; default: paceline's energy, the others' least-loaded", oneOf: ['energy', 'least-loaded'] },
    concurrency: { type: 'number', value: 'N', help: "requests on a replica at once; default: the profile's maxSequences", min: 1, max: 100_000, integer: true },
    target: { type: 'number', value: 'SHARE', help: 'attainment that paceline aims at and best-static must reach', default: 0.99, min: 0.5, max: 0.9999 },
    json: { type: 'flag', help: 'print the runs as a JSON list and nothing else on stdout' },
  },
  examples: [
    'paceline simulate --synthetic poisson --rate 6 --duration 600 --slo config/slo/mixed.json',
    'paceline simulate --trace azure:AzureLLMInferenceTrace_conv.csv --slo config/slo/chat.json --replicas 2',
    'paceline simulate --synthetic bursty --rate 4 --duration 600 --slo config/slo/chat.json --time-error 20 --policy max-clock,paceline',
  ],
  run: async (options) => {
    const { workload, classes } = await readWorkload('simulate', options);
    const truth = profileOf('truth', options.truth);
    const belief = options.belief === undefined ? truth : profileOf('belief', options.belief);
    const lastAtMs = workload.requests.at(-1)?.atMs ?? 0;
    const shared: Omit<SimulationOptions, 'policy'> = {
      requests: workload.requests,
      classes: drawClasses(classes ?? BEST_EFFORT, workload.requests.length, options.seed),
      replicas: options.replicas,
      truth,
      truthScale: { time: 1 + options['time-error'] / 100, power: 1 + options['power-error'] / 100 },
      belief,
      seed: options.seed,
      attainmentTarget: options.target,
      untilMs: lastAtMs + WINDOW_TAIL_S * 1000,
      ...(options.routing === undefined ? {} : { routing: options.routing === 'energy' ? 'energy' : 'least-loaded' }),
      ...(options.concurrency === undefined ? {} : { concurrencyMax: options.concurrency }),
    };
    const runs = options.policy.split(',').map((name) => {
      const label = { policy: name.trim(), replicas: options.replicas, seed: options.seed };
      if (label.policy === 'clairvoyant') return runReport(label, simulateClairvoyant(shared));
      if (label.policy === 'lower-bound') return lowerBoundReport(label, shared);
      const wanted = policyOf(name.trim(), belief);
      const play = (policy: SimulationOptions['policy'], label: string): RunReport =>
        runReport({ policy: label, replicas: options.replicas, seed: options.seed }, simulate({ ...shared, policy, onProgress: progressOf(label, shared.untilMs ?? 0) }));
      return wanted === 'best-static' ? bestStatic(belief, options.target, play) : play(wanted, name.trim());
    });
    process.stdout.write(options.json ? `${JSON.stringify(runs, null, 2)}\n` : `${workload.name}, ${workload.requests.length} requests, ${options.replicas} replicas of ${truth.name}, seed ${options.seed}\n\n${formatRuns(runs)}\n`);
    return 0;
  },
});

/** The static point that in hindsight took the least energy among those that reach the target; if none does, the best attainment. */
function bestStatic(belief: Profile, target: number, play: (policy: SimulationOptions['policy'], label: string) => RunReport): RunReport {
  const runs = belief.points.map(({ id }) => play({ kind: 'static', pointId: id }, `best-static (${id})`));
  const reaching = runs.filter(({ attainment }) => attainment >= target);
  if (reaching.length > 0) return reaching.reduce((best, run) => (run.energyJ < best.energyJ ? run : best));
  return runs.reduce((best, run) => (run.attainment > best.attainment ? run : best));
}

function policyOf(name: string, belief: Profile): SimulationOptions['policy'] | 'best-static' {
  if (name === 'max-clock' || name === 'paceline') return { kind: name };
  if (name === 'best-static') return name;
  const [, rival = '', margin = '0'] = /^([a-z-]+)(?:@(0(?:\.\d+)?))?$/.exec(name) ?? [];
  if (isRivalName(rival)) return { kind: 'rival-factory', create: RIVALS[rival], margin: Number(margin) };
  const clock = /^static:(.+)$/.exec(name)?.[1];
  if (clock === undefined) throw new UsageError(`--policy: got '${name}', allowed: ${POLICIES}`);
  const point = belief.points.find(({ id, knobs }) => id === clock || String(knobs['clockMhz']) === clock);
  if (point === undefined) throw new UsageError(`--policy: ${name}: ${belief.name} has no such point; it has: ${belief.points.map(({ id }) => id).join(', ')}`);
  return { kind: 'static', pointId: point.id };
}

function profileOf(option: string, path: string): Profile {
  try {
    return loadProfile(path);
  } catch (error) {
    throw error instanceof ProfileFileError ? new UsageError(`--${option}: ${error.message}`, { cause: error }) : error;
  }
}

/** Says how far a long run is; nothing where nobody watches. */
function progressOf(label: string, untilMs: number): (nowMs: number) => void {
  let saidAtMs = performance.now();
  return (nowMs) => {
    if (!process.stderr.isTTY || performance.now() - saidAtMs < PROGRESS_EVERY_MS) return;
    saidAtMs = performance.now();
    process.stderr.write(`\r${label}: ${Math.min(100, Math.round((100 * nowMs) / Math.max(1, untilMs)))} %   `);
  };
}
