// A fault schedule and the load that runs beside it, drawn from a seed: what is broken when, for how long, and which
// requests go where. Pure, so that a seed alone says all of it.
import type { Random } from '../../src/random/random.ts';
import { createRandom } from '../../src/random/random.ts';

/** What can be broken, and how. */
export const FAULT_KINDS = {
  /** Emulated model servers, as processes: SIGKILL and a new one at its end; SIGSTOP and SIGCONT; stopped most of the time. */
  replica: ['kill', 'hang', 'slow'],
  /** The scriptable one, which goes on answering its probes meanwhile, but where it is dead. */
  stub: ['garbage', 'reset', 'hang', 'slow', 'refuse', 'kill'],
  /** The sentinel with its worker, the worker alone, and the worker stopped. */
  agent: ['kill', 'kill-worker', 'freeze'],
  redis: ['kill', 'freeze'],
  gateway: ['kill'],
} as const;

export type TargetKind = keyof typeof FAULT_KINDS;

export interface Fault {
  /** Since the load began. */
  readonly atMs: number;
  readonly lengthMs: number;
  readonly target: TargetKind;
  /** Which one, where there are several. */
  readonly index: number;
  readonly kind: string;
}

export interface PlannedRequest {
  readonly id: string;
  readonly atMs: number;
  readonly gateway: number;
  readonly endpoint: 'chat' | 'completions';
  readonly stream: boolean;
  readonly asksUsage: boolean;
  readonly promptWords: number;
  readonly outputTokens: number;
  /** What it says that it may take at most; default 1,024. */
  readonly maxTokens?: number;
  readonly slo: Readonly<Record<string, string>>;
  /** The client goes away so long after it has sent; `null`: it stays. */
  readonly leavesAfterMs: number | null;
}

export interface Schedule {
  readonly seed: number;
  /** How the gateways spread requests: by energy most of them go to one replica, by load to all. */
  readonly routing: 'energy' | 'least-loaded';
  /** Of each replica: where it is small, requests wait in the gateways. */
  readonly concurrencyMax: number;
  readonly faults: readonly Fault[];
  readonly requests: readonly PlannedRequest[];
}

export interface ScheduleShape {
  readonly replicas: number;
  readonly agents: number;
  readonly gateways: number;
  /** Requests begin within it. */
  readonly loadMs: number;
  readonly ratePerS: number;
  readonly faults: { readonly min: number; readonly max: number };
}

export const SHAPE: ScheduleShape = { replicas: 2, agents: 2, gateways: 2, loadMs: 4_000, ratePerS: 24, faults: { min: 3, max: 8 } };

const LENGTH_MS = { min: 150, max: 1_500 };
/** Between two faults of one target: it has come back in between. */
const APART_MS = 300;
const LEAVES_SHARE = 0.1;
/** Of schedules in which, for a while, no model server is alive. */
const BLACKOUT_SHARE = 0.2;
/** So many that they fill a KV block: an emulated server's answers are then different for each. */
const PROMPT_WORDS = 40;

const SLOS: PlannedRequest['slo'][] = [{ 'x-slo-ttft-ms': '1000', 'x-slo-tpot-ms': '60' }, { 'x-slo-ttft-ms': '300', 'x-slo-tpot-ms': '20' }, { 'x-slo-e2e-ms': '5000' }, {}];

export function makeSchedule(seed: number, shape: ScheduleShape = SHAPE): Schedule {
  const random = createRandom(seed, 'gateways');
  return { seed, routing: random() < 0.75 ? 'least-loaded' : 'energy', concurrencyMax: pick(random, [3, 6, 64]), faults: drawFaults(createRandom(seed, 'faults'), shape), requests: drawRequests(createRandom(seed, 'requests'), seed, shape) };
}

/** The schedules of a run: the `only`-th of them is the one that `--only` names. */
export function scheduleSeed(seed: number, only: number): number {
  return seed * 10_000 + only;
}

export function describeFault({ atMs, lengthMs, target, index, kind }: Fault): string {
  return `${target}-${index} ${kind} at ${atMs} ms for ${lengthMs} ms`;
}

function drawFaults(random: Random, shape: ScheduleShape): Fault[] {
  const counts: Readonly<Record<TargetKind, number>> = { replica: shape.replicas, stub: 1, agent: shape.agents, redis: 1, gateway: shape.gateways };
  const choices = (Object.keys(FAULT_KINDS) as TargetKind[]).flatMap((target) => FAULT_KINDS[target].map((kind) => ({ target, kind })));
  const wanted = between(random, shape.faults.min, shape.faults.max);
  const faults: Fault[] = random() < BLACKOUT_SHARE ? blackout(random, shape) : [];
  // Those that would fall upon one of the same target are drawn again; there are never so many that none fits.
  for (let draw = 0, before = faults.length; faults.length < before + wanted && draw < 20 * wanted; draw++) {
    const { target, kind } = pick(random, choices);
    const fault: Fault = { atMs: between(random, 200, shape.loadMs - 500), lengthMs: between(random, LENGTH_MS.min, LENGTH_MS.max), target, kind, index: between(random, 0, counts[target] - 1) };
    if (faults.every((other) => other.target !== target || other.index !== fault.index || apart(fault, other))) faults.push(fault);
  }
  return faults.toSorted((one, other) => one.atMs - other.atMs);
}

function blackout(random: Random, shape: ScheduleShape): Fault[] {
  const fault = { atMs: between(random, 500, shape.loadMs - LENGTH_MS.max), lengthMs: between(random, 800, LENGTH_MS.max), kind: 'kill' };
  return [{ ...fault, target: 'stub', index: 0 }, ...Array.from({ length: shape.replicas }, (_, index): Fault => ({ ...fault, target: 'replica', index }))];
}

function apart(one: Fault, other: Fault): boolean {
  return one.atMs > other.atMs + other.lengthMs + APART_MS || other.atMs > one.atMs + one.lengthMs + APART_MS;
}

function drawRequests(random: Random, seed: number, shape: ScheduleShape): PlannedRequest[] {
  return Array.from({ length: Math.round((shape.loadMs / 1_000) * shape.ratePerS) }, (_, index) => ({
    id: `s${seed}-${index}`,
    atMs: between(random, 0, shape.loadMs),
    ...drawRequest(random, shape),
  })).toSorted((one, other) => one.atMs - other.atMs);
}

/** After the faults, to see that everything serves again: to every gateway, and nobody leaves. */
export function tailRequests({ seed }: Schedule, shape: ScheduleShape = SHAPE): PlannedRequest[] {
  const random = createRandom(seed, 'tail');
  return Array.from({ length: 3 * shape.gateways }, (_, index) => ({ id: `s${seed}-tail-${index}`, atMs: 0, ...drawRequest(random, shape), gateway: index % shape.gateways, leavesAfterMs: null }));
}

function drawRequest(random: Random, shape: ScheduleShape): Omit<PlannedRequest, 'id' | 'atMs'> {
  return {
    gateway: between(random, 0, shape.gateways - 1),
    endpoint: random() < 0.7 ? 'chat' : 'completions',
    stream: random() < 0.65,
    asksUsage: random() < 0.5,
    promptWords: PROMPT_WORDS,
    outputTokens: between(random, 1, 80),
    slo: pick(random, SLOS),
    leavesAfterMs: random() < LEAVES_SHARE ? between(random, 0, 600) : null,
  };
}

function between(random: Random, min: number, max: number): number {
  return min + Math.floor(random() * (max - min + 1));
}

function pick<T>(random: Random, from: readonly T[]): T {
  return from[Math.floor(random() * from.length)] as T;
}
