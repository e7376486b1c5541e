// The options of `paceline frontier`, and which of its actions takes which: one that an action would not look at is refused, and not ignored.
import { SOURCE_FORMATS } from '../frontier-view/convert.ts';
import { WORKFLOW_MS_MAX } from '../workflow-document.ts';
import { UsageError } from './command.ts';

export const FRONTIER_ACTIONS = ['show', 'compare', 'compose', 'workflow', 'scale', 'fleet', 'validate', 'convert'] as const;
export type FrontierAction = (typeof FRONTIER_ACTIONS)[number];

/** Beyond these it is no other generation of a device, but a slip of the pen. */
const FACTOR = { min: 0.01, max: 10 };
const COMPOSED_AS = ['sequence', 'pipeline', 'pools', 'replicas'] as const;

export const FRONTIER_OPTIONS = {
  'prompt-tokens': { type: 'number', value: 'N', help: 'show, compare, compose, fleet: of the prompt that is prefilled', default: 1024, min: 1, max: 10_000_000, integer: true },
  sequences: { type: 'number', value: 'N', help: 'show, compare, compose --as sequence: that get a token in a decode step', default: 16, min: 1, max: 100_000, integer: true },
  context: { type: 'number', value: 'N', help: 'show, compare, compose --as sequence: tokens of context of each of them', default: 1024, min: 0, max: 10_000_000, integer: true },
  'output-tokens': { type: 'number', value: 'N', help: 'compose but --as pipeline, fleet: tokens that are decoded after the prompt', default: 256, min: 1, max: 1_000_000, integer: true },
  as: { type: 'text', value: 'HOW', help: 'compose: a prompt and then its answer; stages of a pipeline, one file each; a pool that prefills and one that decodes; replicas that share a load', oneOf: COMPOSED_AS, default: 'sequence' },
  'micro-batches': { type: 'number', value: 'N', help: 'compose --as pipeline: prompts that go through all stages', default: 8, min: 1, max: 100_000, integer: true },
  rate: { type: 'number', value: 'R', help: 'compose --as pools, replicas; fleet: requests a second', default: 1, min: 0, max: 1_000_000 },
  'ttft-ms': { type: 'number', value: 'MS', help: 'compose --as pools: mean time to the first token, at most; fleet: that of nineteen of twenty', default: 500, min: 0.001 },
  'tpot-ms': { type: 'number', value: 'MS', help: 'compose --as pools, replicas; fleet: mean time from one token to the next, at most', default: 50, min: 0.001 },
  prefill: { type: 'number', value: 'P', help: 'compose --as pools: replicas that prefill', default: 1, min: 1, max: 64, integer: true },
  decode: { type: 'number', value: 'D', help: 'compose --as pools: replicas that decode', default: 1, min: 1, max: 64, integer: true },
  each: { type: 'number', value: 'N', help: 'compose --as replicas: of each file', default: 1, min: 1, max: 64, integer: true },
  'within-ms': { type: 'number', value: 'MS', help: 'compose --as sequence, pipeline: names the cheapest way that takes no longer', min: 0.001 },
  'horizon-ms': { type: 'number', value: 'MS', help: 'show: counts the energy of idling until then; what is burnt anyway is no saving', min: 0.001 },
  profile: { type: 'texts', value: 'MODEL=PATH', help: 'workflow: what calls of that model cost; PATH alone: of every model' },
  company: { type: 'number', value: 'N', help: 'workflow: streams in the batches that a call shares, itself included', default: 8, min: 1, max: 100_000, integer: true },
  like: { type: 'text', value: 'PROMPT:OUTPUT', help: 'workflow: tokens of calls that say none' },
  'deadline-ms': { type: 'number', value: 'MS', help: "workflow: allots each stage's time for the least energy within it; default: the file's", min: 0.001, max: WORKFLOW_MS_MAX },
  devices: { type: 'number', value: 'N', help: 'fleet: devices that there are', default: 8, min: 1, max: 4096, integer: true },
  peak: { type: 'number', value: 'X', help: 'fleet: has room for so many times the rate', default: 1.3, min: 1, max: 100 },
  'batch-tokens': { type: 'text', value: 'LIST', help: "fleet: chunk sizes to look at beside the profiles' own, separated by commas" },
  sleep: { type: 'text', value: 'COSTS', help: 'fleet: servers may sleep, POWERW:SLEEPMS:WAKEMS of each' },
  time: { type: 'number', value: 'X', help: 'scale: all times of prefill and decode times X; below 1 is faster, default 1', ...FACTOR },
  power: { type: 'number', value: 'X', help: 'scale: power while busy times X, default 1', ...FACTOR },
  'idle-power': { type: 'number', value: 'X', help: 'scale: power while idle, asleep and waking times X; default: as --power', ...FACTOR },
  name: { type: 'text', value: 'NAME', help: 'scale: what the device that nobody has measured is called' },
  from: { type: 'text', value: 'FORMAT', help: 'convert: what the file is', oneOf: Object.keys(SOURCE_FORMATS) },
  source: { type: 'text', value: 'TEXT', help: 'convert: where the table is from; kept as provenance' },
  licence: { type: 'text', value: 'TEXT', help: 'convert: its licence, e.g. Apache-2.0' },
  json: { type: 'flag', help: 'all but scale, convert: JSON on standard output' },
  svg: { type: 'text', value: 'FILE', help: 'show, compare, compose, workflow: the plot of decode (compose, workflow: of the whole) as a file' },
  html: { type: 'text', value: 'FILE', help: 'show, compare, compose, workflow: plots and tables as a page' },
  out: { type: 'text', value: 'FILE', help: 'scale, convert: where to; default: standard output' },
} as const;

type Option = keyof typeof FRONTIER_OPTIONS;
type Asked = Exclude<FrontierAction, 'compose'> | `compose --as ${(typeof COMPOSED_AS)[number]}`;

const WORK = ['prompt-tokens', 'sequences', 'context'] as const;
const DRAWN = ['json', 'svg', 'html'] as const;

/** What each looks at. */
export const OPTIONS_OF: Readonly<Record<Asked, readonly Option[]>> = {
  show: [...WORK, 'horizon-ms', ...DRAWN],
  compare: [...WORK, ...DRAWN],
  'compose --as sequence': ['as', ...WORK, 'output-tokens', 'within-ms', ...DRAWN],
  'compose --as pipeline': ['as', 'prompt-tokens', 'micro-batches', 'within-ms', ...DRAWN],
  'compose --as pools': ['as', 'prompt-tokens', 'output-tokens', 'rate', 'ttft-ms', 'tpot-ms', 'prefill', 'decode', ...DRAWN],
  'compose --as replicas': ['as', 'prompt-tokens', 'output-tokens', 'rate', 'tpot-ms', 'each', ...DRAWN],
  workflow: ['profile', 'company', 'like', 'deadline-ms', ...DRAWN],
  scale: ['time', 'power', 'idle-power', 'name', 'out'],
  fleet: ['prompt-tokens', 'output-tokens', 'devices', 'rate', 'peak', 'ttft-ms', 'tpot-ms', 'batch-tokens', 'sleep', 'json'],
  validate: ['json'],
  convert: ['from', 'source', 'licence', 'out'],
};

export function isFrontierAction(text: string | undefined): text is FrontierAction {
  return FRONTIER_ACTIONS.some((action) => action === text);
}

/** Throws `UsageError` for an option that the action does not take; `as`: of compose; `given`: those that stand on the command line. */
export function refuseStray(action: FrontierAction, as: string, given: ReadonlySet<string>): void {
  const asked = action === 'compose' ? (`compose --as ${as}` as Asked) : action;
  const taken: readonly string[] = OPTIONS_OF[asked];
  const stray = [...given].filter((option) => !taken.includes(option));
  if (stray.length === 0) return;
  throw new UsageError(`frontier ${asked}: got ${stray.map((option) => `--${option}`).join(', ')}, which it does not take; its options are ${taken.map((option) => `--${option}`).join(', ')}`);
}
