// Which machines a simulation has: replicas of one profile, or a mixed fleet; what they do and what is believed of them.
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { z } from 'zod';
import { createPhysics } from '../engine/physics.ts';
import type { Profile } from '../frontier/profile.ts';
import { ProfileFileError, loadProfile } from '../profile-file.ts';
import type { MachineOptions } from '../simulator/machines.ts';
import type { FleetMember } from '../simulator/simulate.ts';
import { type OptionValues, UsageError } from './command.ts';
import { parseSleepCosts, withSleep } from './sleep-option.ts';

const DEFAULT = { replicas: 4, truth: 'config/profiles/llama-3.1-70b.h100-tp4.json' };
/** The package's own, from wherever the command is run. */
const DEFAULT_TRUTH = resolve(import.meta.dirname, import.meta.dirname.includes('dist') ? '..' : '../..', DEFAULT.truth);
const REPLICAS_MAX = 10_000;
/** Below -90 % nothing is left, above 900 % it is another machine. */
const ERROR_PCT = { min: -90, max: 900 };

export const FLEET_OPTIONS = {
  replicas: { type: 'number', value: 'N', help: `replicas, each on the profile's device group, default ${DEFAULT.replicas}`, min: 1, max: REPLICAS_MAX, integer: true },
  truth: { type: 'text', value: 'FILE', help: `profile that the machines follow, default ${DEFAULT.truth}` },
  belief: { type: 'text', value: 'FILE', help: 'profile that the gateway believes; default: the truth' },
  fleet: { type: 'text', value: 'LIST', help: 'replicas of several profiles instead: [Nx]TRUTH[=BELIEF],…, or a file {"fleet": [{"replicas": N, "truth": FILE, "belief": FILE}]}' },
  'time-error': { type: 'number', value: 'PCT', help: 'the truth is slower than its profile by this; negative: faster', default: 0, ...ERROR_PCT },
  'power-error': { type: 'number', value: 'PCT', help: 'the truth draws more than its profile by this; negative: less', default: 0, ...ERROR_PCT },
  noise: { type: 'number', value: 'PCT', help: 'each iteration takes a log-normal time around the truth, spread by this', default: 0, min: 0, max: 200 },
  'switch-outliers': { type: 'text', value: 'SHARE:MS', help: "share of clock switches that take up to so long; default: the truth profile's" },
  'batch-tokens': { type: 'number', value: 'N', help: "tokens that a server takes into one batch (its chunk size, vLLM's --max-num-batched-tokens); default: the profile's", min: 1, max: 1_000_000, integer: true },
  sleep: { type: 'text', value: 'COSTS', help: "servers sleep while the others are enough: POWERW:SLEEPMS:WAKEMS[:WAKEJ] of each device group (watts asleep, times to fall asleep and to wake, joules of waking), or 'profile' for what the profiles say; default: none sleeps" },
  'awake-min': { type: 'number', value: 'N', help: 'with --sleep: so many replicas stay awake at least', default: 1, min: 0, max: REPLICAS_MAX, integer: true },
  'power-cap': { type: 'number', value: 'W', help: 'limit of each device group; the gateway is not told', min: 1 },
} as const;

export interface FleetChoice {
  readonly members: readonly [FleetMember, ...FleetMember[]];
  readonly truthScale: { readonly time: number; readonly power: number };
  readonly machines: MachineOptions;
  /** `null`: none sleeps. */
  readonly sleep: { readonly awakeMin: number } | null;
  /** `4 replicas of a`, `2 x a, 2 x b`. */
  readonly name: string;
}

/** Throws `UsageError` for what cannot be read or makes no sense. */
export function readFleet(options: OptionValues<typeof FLEET_OPTIONS>): FleetChoice {
  const named = options.fleet === undefined ? uniform(options) : mixed(options.fleet, options);
  const started = options['batch-tokens'] === undefined ? named : batchedBy(named, options['batch-tokens']);
  const members = options.sleep === undefined ? started : sleeping(started, options.sleep);
  return {
    members,
    truthScale: { time: 1 + options['time-error'] / 100, power: 1 + options['power-error'] / 100 },
    machines: {
      durationCv: options.noise / 100,
      ...(options['switch-outliers'] === undefined ? {} : { switchOutliers: outliersOf(options['switch-outliers']) }),
      ...(options['power-cap'] === undefined ? {} : { powerCapW: options['power-cap'] }),
    },
    sleep: options.sleep === undefined ? null : { awakeMin: options['awake-min'] },
    name: nameOf(members),
  };
}

function uniform({ replicas = DEFAULT.replicas, truth, belief }: { readonly replicas?: number | undefined; readonly truth?: string | undefined; readonly belief?: string | undefined }): FleetChoice['members'] {
  const followed = profileOf('--truth', truth ?? DEFAULT_TRUTH);
  const member = { truth: followed, belief: belief === undefined ? followed : profileOf('--belief', belief) };
  return [member, ...Array.from({ length: replicas - 1 }, () => member)];
}

function mixed(text: string, options: { readonly replicas?: number | undefined; readonly truth?: string | undefined; readonly belief?: string | undefined }): FleetChoice['members'] {
  for (const name of ['replicas', 'truth', 'belief'] as const) {
    if (options[name] !== undefined) throw new UsageError(`--${name}: --fleet says ${name === 'replicas' ? 'how many replicas there are (2xTRUTH)' : name === 'truth' ? 'what the machines follow' : 'what is believed of each (TRUTH=BELIEF)'}; leave one of the two out`);
  }
  // Files are read once however often they are named, so that replicas of one profile share it.
  const profiles = new Map<string, Profile>();
  const read = (path: string): Profile => {
    const known = profiles.get(path) ?? profileOf('--fleet', path);
    profiles.set(path, known);
    return known;
  };
  const members = (fleetFile(text) ?? text.split(',').map(entryOf)).flatMap(({ replicas, truth, belief }): FleetMember[] => {
    const member = { truth: read(truth), belief: read(belief ?? truth) };
    return Array.from({ length: replicas }, () => member);
  });
  const [first, ...others] = members;
  if (first === undefined || members.length > REPLICAS_MAX) throw new UsageError(`--fleet: got ${members.length} replicas, want 1 to ${REPLICAS_MAX}`);
  return [first, ...others];
}

interface Entry {
  readonly replicas: number;
  readonly truth: string;
  readonly belief?: string | undefined;
}

function entryOf(text: string): Entry {
  const [, count = '1', truth = '', belief] = /^\s*(?:(\d{1,6})x)?([^=]+?)(?:=([^=]+?))?\s*$/.exec(text) ?? [];
  if (truth === '' || Number(count) < 1) throw new UsageError(`--fleet: got '${text}', want [Nx]TRUTH[=BELIEF], for example 2xconfig/profiles/a.json`);
  return { replicas: Number(count), truth, belief };
}

const FleetFile = z.strictObject({ fleet: z.array(z.strictObject({ replicas: z.int().min(1).max(REPLICAS_MAX).default(1), truth: z.string().min(1), belief: z.string().min(1).optional() })).min(1) });

/** `null` where the text names no fleet file. Its paths count from where it lies. */
function fleetFile(text: string): readonly Entry[] | null {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(text, 'utf8'));
  } catch {
    return null;
  }
  if (typeof value !== 'object' || value === null || !('fleet' in value)) return null;
  const parsed = FleetFile.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new UsageError(`--fleet: ${text} ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not a fleet file'}`);
  }
  const from = dirname(text);
  return parsed.data.fleet.map(({ replicas, truth, belief }) => ({ replicas, truth: resolve(from, truth), belief: belief === undefined ? undefined : resolve(from, belief) }));
}

/** The simulated devices have one knob, their clock: a profile of another can be believed by a gateway, but not played. */
function profileOf(option: string, path: string): Profile {
  try {
    const profile = loadProfile(path);
    createPhysics(profile);
    return profile;
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(`${option}: ${path}: ${error.message}`, { cause: error });
    throw error instanceof ProfileFileError ? new UsageError(`${option}: ${error.message}`, { cause: error }) : error;
  }
}

/** All profiles changed alike; members that share one still do. */
function changed(members: FleetChoice['members'], change: (profile: Profile) => Profile): FleetChoice['members'] {
  const known = new Map<Profile, Profile>();
  const changedOnce = (profile: Profile): Profile => {
    const made = known.get(profile) ?? change(profile);
    known.set(profile, made);
    return made;
  };
  const [first, ...others] = members.map(({ truth, belief }) => ({ truth: changedOnce(truth), belief: changedOnce(belief) }));
  return [first as FleetMember, ...others];
}

function sleeping(members: FleetChoice['members'], text: string): FleetChoice['members'] {
  if (text === 'profile') {
    const silent = members.flatMap(({ truth, belief }) => [truth, belief]).find(({ sleep }) => sleep === undefined);
    if (silent !== undefined) throw new UsageError(`--sleep: got 'profile', and ${silent.name} does not say what sleeping costs; want POWERW:SLEEPMS:WAKEMS[:WAKEJ]`);
    return members;
  }
  const sleep = parseSleepCosts('--sleep', text);
  return changed(members, (profile) => withSleep(profile, sleep, '--sleep'));
}

/** As if the engines had been started with another budget of tokens for a batch. */
function batchedBy(members: FleetChoice['members'], maxBatchTokens: number): FleetChoice['members'] {
  return changed(members, (profile) => {
    if (maxBatchTokens < profile.serving.maxSequences) throw new UsageError(`--batch-tokens: got ${maxBatchTokens}, below the ${profile.serving.maxSequences} sequences of ${profile.name}: a step could not hold one token of each`);
    return { ...profile, serving: { ...profile.serving, maxBatchTokens } };
  });
}

function outliersOf(text: string): { share: number; latencyMs: number } {
  const [, shareText = '', msText = ''] = /^([0-9.]+):([0-9.]+)$/.exec(text) ?? [];
  const [share, latencyMs] = [Number(shareText || Number.NaN), Number(msText || Number.NaN)];
  if (!(share >= 0 && share <= 1 && latencyMs >= 0 && latencyMs <= 60_000)) throw new UsageError(`--switch-outliers: got '${text}', want SHARE:MS such as 0.01:480, with a share from 0 to 1 and up to 60000 ms`);
  return { share, latencyMs };
}

function nameOf(members: readonly FleetMember[]): string {
  const groups = [...Map.groupBy(members, ({ truth }) => truth.name)];
  const [only] = groups;
  return groups.length === 1 && only !== undefined ? `${members.length} replica${members.length === 1 ? '' : 's'} of ${only[0]}` : groups.map(([name, { length }]) => `${length} x ${name}`).join(', ');
}
