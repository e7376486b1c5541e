// paceline simulate: the gateway's own decisions on virtual time over modelled replicas. What-if questions in seconds.
import { readFileSync } from 'node:fs';
import type { EnergyPrice } from '../core/energy-prices.ts';
import { createPhysics } from '../engine/physics.ts';
import { simulateClairvoyant } from '../simulator/clairvoyant.ts';
import { extrapolations, fitsInto, oversized, uncapped } from '../simulator/coverage.ts';
import { parseSeries } from '../signals/series.ts';
import { createExplainer } from '../simulator/explanation.ts';
import { feasibleAlone } from '../simulator/feasibility.ts';
import { formatExplanation } from '../simulator/format-explanation.ts';
import { formatRuns } from '../simulator/format-runs.ts';
import { lowerBoundReport } from '../simulator/lower-bound.ts';
import { RIVALS, isRivalName } from '../simulator/rivals/rivals.ts';
import { type RunReport, runReport } from '../simulator/run-report.ts';
import type { SimulationOptions } from '../simulator/simulate.ts';
import { simulatedRun } from './simulated-run.ts';
import type { WorkloadRequest } from '../workload/request.ts';
import { BEST_EFFORT, drawClasses, mixClasses, scaleSlos, type SloClass } from '../workload/slo-classes.ts';
import { WorkloadError } from '../workload/workload-error.ts';
import { UsageError, defineCommand } from './command.ts';
import { FLEET_OPTIONS, type FleetChoice, readFleet } from './fleet-options.ts';
import { formatWorkflowRuns, playWorkflows } from './simulate-workflows.ts';
import { POWER_OPTIONS, readPower } from './power-options.ts';
import { WORKLOAD_OPTIONS, readWorkload } from './workload-options.ts';

const POLICIES = `max-clock, static:<MHz>, best-static, paceline, clairvoyant, lower-bound, ${Object.keys(RIVALS).join(', ')} (these also with their own margin: <name>@0.1)`;
const POLICIES_DEFAULT = 'max-clock,best-static,paceline';
/** Runs are compared over the arrivals and this much more, unless one takes longer. */
const WINDOW_TAIL_S = 30;
const PROGRESS_EVERY_MS = 500;

export const command = defineCommand({
  name: 'simulate',
  summary: "Plays a workload on virtual time: the gateway's own decisions over modelled replicas.",
  options: {
    ...WORKLOAD_OPTIONS,
    policy: { type: 'text', value: 'LIST', help: `separated by commas, default ${POLICIES_DEFAULT}: ${POLICIES}` },
    ...FLEET_OPTIONS,
    ...POWER_OPTIONS,
    'slo-scale': { type: 'number', value: 'X', help: 'all SLOs times X: below 1 is tighter', default: 1, min: 0.001, max: 1000 },
    mix: { type: 'text', value: 'LIST', help: 'other shares of the SLO classes: CLASS=SHARE,…; the others keep their proportions' },
    'skip-oversized': { type: 'flag', help: 'leave out requests that no replica could ever hold; default: refuse the workload' },
    routing: { type: 'text', value: 'HOW', help: "of all policies; default: paceline's energy, the others' least-loaded", oneOf: ['energy', 'least-loaded'] },
    concurrency: { type: 'number', value: 'N', help: "requests on a replica at once; default: the profile's maxSequences", min: 1, max: 100_000, integer: true },
    'batch-cap': { type: 'text', value: 'HOW', help: "paceline's cap on the requests on a replica: 'plan' it from the profile, or 'learn' it from energy and deadlines; default: --concurrency alone", oneOf: ['plan', 'learn'] },
    target: { type: 'number', value: 'SHARE', help: 'attainment that paceline aims at and best-static must reach', default: 0.99, min: 0.5, max: 0.9999 },
    prices: { type: 'text', value: 'FILE', help: "what energy costs, as docs/power.md has it; the first instant is the workload's beginning. The runs then have a cost, and paceline is played also without moving work to cheap hours" },
    workflow: { type: 'text', value: 'FILE', help: 'instead of requests: runs of the workflow in this file (as of paceline frontier workflow), each due after its deadlineMs' },
    like: { type: 'text', value: 'PROMPT:OUTPUT', help: 'workflow: tokens of calls that say none' },
    'workflow-rate': { type: 'number', value: 'R', help: 'workflow: runs per second', default: 0.1, min: 0.000_01, max: 10_000 },
    'workflow-spread': { type: 'number', value: 'CV', help: 'workflow: coefficient of variation of what its answers and tools take about what the file says', default: 0.4, min: 0, max: 3 },
    explain: { type: 'number', value: 'REQUEST', help: 'instead of the table: what was decided for this request (from 0) under paceline, and why', min: 0, integer: true },
    json: { type: 'flag', help: 'print the runs as a JSON list and nothing else on stdout' },
  },
  examples: [
    'paceline simulate --synthetic poisson --rate 6 --duration 600 --slo config/slo/mixed.json',
    'paceline simulate --trace azure:AzureLLMInferenceTrace_conv.csv --slo config/slo/chat.json --replicas 2',
    'paceline simulate --synthetic bursty --rate 4 --duration 600 --slo config/slo/chat.json --time-error 20 --policy max-clock,paceline',
    'paceline simulate --synthetic poisson --rate 4 --slo config/slo/mixed.json --mix premium=0.6 --slo-scale 0.8 --power-cap 2000',
    'paceline simulate --synthetic poisson --rate 6 --slo config/slo/chat.json --fleet 2xconfig/profiles/llama-3.1-70b.h100-tp4.json,2xmine.json',
    'paceline simulate --synthetic poisson --rate 12 --slo config/slo/mixed.json --power-budget 60% --policy max-clock,paceline',
    'paceline simulate --synthetic poisson --rate 4 --slo config/slo/chat.json --explain 17',
    'paceline simulate --workflow config/workflows/research.yaml --workflow-rate 0.5 --duration 600 --truth config/profiles/llama-3.1-8b.h200.json',
    'paceline simulate --synthetic poisson --rate 2 --duration 7200 --slo mine.json --prices prices.csv --policy max-clock,paceline',
  ],
  run: async (options, _, given) => {
    if (options.workflow !== undefined) return answerWorkflow(options.workflow, options, given);
    const ofWorkflows = OF_WORKFLOWS.find((name) => given.has(name));
    if (ofWorkflows !== undefined) throw new UsageError(`--${ofWorkflows}: is of workflows; name one with --workflow`);
    const read = await readWorkload('simulate', options);
    const fleet = readFleet(options);
    const workload = { ...read.workload, requests: holdable(read.workload.requests, fleet, options['skip-oversized']) };
    const classes = wantedClasses(read.classes, options);
    const power = readPower(options, fleet.members, fleet.sleep !== null);
    const [{ truth, belief }] = fleet.members;
    const lastAtMs = workload.requests.at(-1)?.atMs ?? 0;
    const prices = options.prices === undefined ? [] : pricesIn(options.prices);
    const shared: Omit<SimulationOptions, 'policy'> = {
      requests: workload.requests,
      classes: drawClasses(classes, workload.requests.length, options.seed),
      replicas: fleet.members.length,
      truth,
      truthScale: fleet.truthScale,
      machines: fleet.machines,
      belief,
      fleet: fleet.members,
      seed: options.seed,
      attainmentTarget: options.target,
      // What is moved ends later: all runs go on until nothing can be left of it, so that they idle for as long.
      untilMs: lastAtMs + WINDOW_TAIL_S * 1000 + (prices.length === 0 ? 0 : Math.max(0, ...classes.map(({ slo }) => slo.e2eMs ?? 0))),
      prices,
      ...(options.routing === undefined ? {} : { routing: options.routing === 'energy' ? 'energy' : 'least-loaded' }),
      ...(options.concurrency === undefined ? {} : { concurrencyMax: options.concurrency }),
    };
    const knobs: Knobs = {
      ...(fleet.sleep === null ? {} : { sleep: fleet.sleep }),
      ...(options['batch-cap'] === undefined ? {} : { batchCap: options['batch-cap'] === 'plan' ? 'plan' : 'learn' }),
    };
    // All names are checked before the first run: an hour of simulation must not end in a typing mistake.
    const names = (options.policy ?? POLICIES_DEFAULT).split(',').map((name) => name.trim());
    for (const name of names) {
      if (name === 'clairvoyant' || name === 'lower-bound') onlyPlain(name, fleet, options.concurrency, power !== null);
      else policyOf(name, fleet.members);
    }
    warn(fleet, workload.requests, options.concurrency);
    if (options.explain !== undefined) {
      if (options.policy !== undefined && options.policy !== 'paceline') throw new UsageError(`--explain: tells of the policy paceline, got --policy ${options.policy}; leave it out`);
      process.stdout.write(explained(options.explain, power === null ? shared : { ...shared, power: power('paceline') }, knobs, options.json));
      return 0;
    }
    const machines = [...new Set(fleet.members.map((member) => member.truth))].map((profile) => createPhysics(profile, fleet.truthScale));
    const feasible = feasibleAlone(machines, shared.requests, shared.classes);
    const worths = classes.some(({ worth = 1 }) => worth !== 1) ? shared.classes.map(({ worth = 1 }) => worth) : null;
    const runs = names.flatMap((name) => {
      const label = { policy: name, replicas: shared.replicas, seed: options.seed };
      if (label.policy === 'clairvoyant' || label.policy === 'lower-bound') {
        return label.policy === 'clairvoyant' ? runReport(label, simulateClairvoyant(shared), feasible) : lowerBoundReport(label, shared, feasible);
      }
      const wanted = policyOf(label.policy, fleet.members);
      const play = (policy: SimulationOptions['policy'], label: string, movesWork = true): RunReport =>
        runReport({ policy: label, replicas: shared.replicas, seed: options.seed }, simulatedRun({ ...shared, movesWork, ...knobsUnder(policy, knobs), ...(power === null ? {} : { power: power(policy.kind) }), policy, onProgress: progressOf(label, shared.untilMs ?? 0) }), feasible, fleet.members.map((member) => member.truth.name), worths);
      if (wanted === 'best-static') return bestStatic(fleet.members, options.target, play);
      return prices.length > 0 && name === 'paceline' ? [play(wanted, 'paceline, not moved', false), play(wanted, name)] : play(wanted, name);
    });
    endProgress();
    process.stdout.write(options.json ? `${JSON.stringify(runs, null, 2)}\n` : `${workload.name}, ${workload.requests.length} requests, ${fleet.name}, seed ${options.seed}; energy over ${(Math.max(...runs.map(({ durationS }) => durationS))).toFixed(0)} s${read.classes === undefined ? '; without --slo nothing is promised' : ''}\n\n${formatRuns(runs)}\n`);
    return 0;
  },
});

/** Of a workload of requests, which there is none of. */
const OF_REQUESTS = ['trace', 'synthetic', 'rate', 'cv', 'prompt-tokens', 'output-tokens', 'from', 'speed', 'max-requests', 'slo', 'mix', 'skip-oversized', 'policy', 'routing', 'concurrency', 'batch-cap', 'prices', 'explain', 'sleep', 'awake-min', 'power-budget', 'power-schedule', 'power-policy'] as const;
const OF_WORKFLOWS = ['like', 'workflow-rate', 'workflow-spread'] as const;
const WORKFLOW_DURATION_S = 600;

function answerWorkflow(
  file: string,
  options: { readonly duration?: number | undefined; readonly 'workflow-rate': number; readonly 'workflow-spread': number; readonly like: string | undefined; readonly 'slo-scale': number; readonly seed: number; readonly target: number; readonly json: boolean } & Parameters<typeof readFleet>[0],
  given: ReadonlySet<string>,
): number {
  const stray = OF_REQUESTS.find((name) => given.has(name));
  if (stray !== undefined) throw new UsageError(`--${stray}: is of requests; --workflow plays runs of a workflow instead, leave one of the two out`);
  const { heading, runs } = playWorkflows({ file, like: options.like, ratePerS: options['workflow-rate'], durationS: options.duration ?? WORKFLOW_DURATION_S, spread: options['workflow-spread'], deadlineScale: options['slo-scale'], seed: options.seed, attainmentTarget: options.target }, readFleet(options));
  process.stdout.write(options.json ? `${JSON.stringify(runs, null, 2)}\n` : `${heading}\n\n${formatWorkflowRuns(runs)}\n`);
  return 0;
}

/** The file's first instant is the beginning of virtual time. Throws `UsageError`. */
function pricesIn(path: string): readonly EnergyPrice[] {
  try {
    const { points } = parseSeries(readFileSync(path, 'utf8'));
    const beginsAtUnixMs = points[0]?.atUnixMs ?? 0;
    return points.map(({ atUnixMs, value }) => ({ fromMs: atUnixMs - beginsAtUnixMs, price: value }));
  } catch (error) {
    throw new UsageError(`--prices: ${path}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

function wantedClasses(read: readonly SloClass[] | undefined, { mix, 'slo-scale': scale }: { readonly mix?: string | undefined; readonly 'slo-scale': number }): readonly SloClass[] {
  if (read === undefined) {
    if (mix !== undefined) throw new UsageError('--mix: changes the shares of an SLO file; name one with --slo');
    if (scale !== 1) throw new UsageError('--slo-scale: without --slo nothing is promised that could be tighter; name a file with --slo');
    return BEST_EFFORT;
  }
  try {
    return scaleSlos(mix === undefined ? read : mixClasses(read, mix, '--mix'), scale);
  } catch (error) {
    throw error instanceof WorkloadError ? new UsageError(error.message, { cause: error }) : error;
  }
}

/** Without those that can never be held, if that is wanted; a workload of which nothing is left is refused all the same. */
function holdable(requests: readonly WorkloadRequest[], { members }: FleetChoice, skip: boolean): readonly WorkloadRequest[] {
  const truths = members.map(({ truth }) => truth);
  const problem = oversized(requests, truths);
  if (problem === null) return requests;
  const kept = skip ? requests.filter((request) => truths.some((truth) => fitsInto(truth, request))) : [];
  if (kept.length === 0) throw new UsageError(`${problem}; ${skip ? 'nothing is left' : 'take a profile that holds more, or leave such requests out with --skip-oversized'}`);
  process.stderr.write(`left out ${requests.length - kept.length} of ${requests.length} requests: ${problem}\n`);
  return kept;
}

/** One line on stderr for each thing that the profiles do not cover. */
function warn({ members, machines, truthScale }: FleetChoice, requests: readonly WorkloadRequest[], concurrency: number | undefined): void {
  const truths = [...new Set(members.map(({ truth }) => truth))];
  const profiles = new Set([...truths, ...members.map(({ belief }) => belief)]);
  const lines = [...profiles].flatMap((profile) => extrapolations(profile, requests, concurrency ?? Number.POSITIVE_INFINITY));
  if (machines.powerCapW !== undefined) for (const truth of truths) lines.push(...[uncapped(createPhysics(truth, truthScale), machines.powerCapW) ?? []].flat());
  const models = [...new Set(truths.map(({ model }) => model))];
  if (models.length > 1) lines.push(`the fleet serves ${models.join(' and ')}: requests are taken to be served by either`);
  for (const line of lines) process.stderr.write(`warning: ${line}\n`);
}

function explained(request: number, shared: Omit<SimulationOptions, 'policy'>, knobs: Knobs, json: boolean): string {
  const asked = shared.requests[request];
  const sloClass = shared.classes[request];
  if (asked === undefined || sloClass === undefined) throw new UsageError(`--explain: got ${request}, the workload has the requests 0 to ${shared.requests.length - 1}`);
  const explainer = createExplainer(request, { atMs: asked.atMs, promptTokens: asked.promptTokens, outputTokens: asked.outputTokens, sloClass: sloClass.name, slo: sloClass.slo });
  simulatedRun({ ...shared, ...knobs, policy: { kind: 'paceline' }, observer: explainer.observer, onProgress: progressOf('paceline', shared.untilMs ?? 0) });
  endProgress();
  const explanation = explainer.explanation();
  return `${json ? JSON.stringify(explanation, null, 2) : formatExplanation(explanation)}\n`;
}

/** What else than clocks is planned under paceline. */
type Knobs = Pick<SimulationOptions, 'sleep' | 'batchCap'>;

/** The other policies stand for plain gateways, which have none. */
function knobsUnder({ kind }: SimulationOptions['policy'], knobs: Knobs): Knobs {
  return kind === 'paceline' ? knobs : {};
}

/** The static point that in hindsight took the least energy among those that reach the target; if none does, the best attainment. */
function bestStatic(members: FleetChoice['members'], target: number, play: (policy: SimulationOptions['policy'], label: string) => RunReport): RunReport {
  const [{ belief }, ...others] = members;
  const points = belief.points.filter(({ id }) => others.every((other) => other.belief.points.some((point) => point.id === id)));
  if (points.length === 0) throw new UsageError(`--policy: best-static: ${beliefNames(members)} have no point in common`);
  const runs = points.map(({ id }) => play({ kind: 'static', pointId: id }, `best-static (${id})`));
  const reaching = runs.filter(({ attainment }) => attainment >= target);
  if (reaching.length > 0) return reaching.reduce((best, run) => (run.energyJ < best.energyJ ? run : best));
  return runs.reduce((best, run) => (run.attainment > best.attainment ? run : best));
}

/** What knows the machines beforehand knows one kind of them, as their profile has it. */
function onlyPlain(policy: string, { members, machines }: FleetChoice, concurrency: number | undefined, underBudget: boolean): void {
  if (new Set(members.map(({ truth }) => truth)).size > 1) throw new UsageError(`--policy: ${policy} plans for one kind of replica, and the fleet has ${[...new Set(members.map(({ truth }) => truth.name))].join(' and ')}`);
  const { durationCv = 0, switchOutliers, powerCapW } = machines;
  const stray = Object.entries({ '--noise': durationCv > 0, '--switch-outliers': switchOutliers !== undefined, '--power-cap': powerCapW !== undefined, '--concurrency': concurrency !== undefined, '--power-budget': underBudget }).find(([, given]) => given);
  if (stray !== undefined) throw new UsageError(`--policy: ${policy} knows nothing of ${stray[0]}; leave the option out, or the policy`);
}

function policyOf(name: string, members: FleetChoice['members']): SimulationOptions['policy'] | 'best-static' {
  if (name === 'max-clock' || name === 'paceline') return { kind: name };
  if (name === 'best-static') return name;
  const [, rival = '', margin = '0'] = /^([a-z-]+)(?:@(0(?:\.\d+)?))?$/.exec(name) ?? [];
  if (isRivalName(rival)) {
    if (new Set(members.map(({ belief }) => belief)).size > 1) throw new UsageError(`--policy: ${rival} knows one profile, and the fleet has ${beliefNames(members)}`);
    return { kind: 'rival-factory', create: RIVALS[rival], margin: Number(margin) };
  }
  const clock = /^static:(.+)$/.exec(name)?.[1];
  if (clock === undefined) throw new UsageError(`--policy: got '${name}', allowed: ${POLICIES}`);
  const ids = members.map(({ belief }) => {
    const point = belief.points.find(({ id, knobs }) => id === clock || String(knobs['clockMhz']) === clock);
    if (point === undefined) throw new UsageError(`--policy: ${name}: ${belief.name} has no such point; it has: ${belief.points.map(({ id }) => id).join(', ')}`);
    return point.id;
  });
  if (new Set(ids).size > 1) throw new UsageError(`--policy: ${name}: ${beliefNames(members)} name that point differently: ${[...new Set(ids)].join(', ')}`);
  return { kind: 'static', pointId: ids[0] as string };
}

function beliefNames(members: FleetChoice['members']): string {
  return [...new Set(members.map(({ belief }) => belief.name))].join(' and ');
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

/** What is printed next begins on a line of its own. */
function endProgress(): void {
  if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
}
