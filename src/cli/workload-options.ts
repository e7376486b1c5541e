// What to play: the options that `bench` and `simulate` share, and the workload they name.
import type { WorkloadSource } from '../workload/load-workload.ts';
import { loadSloClasses, loadWorkload, parseTraceSource } from '../workload/load-workload.ts';
import type { Workload } from '../workload/request.ts';
import type { SloClass } from '../workload/slo-classes.ts';
import { parseSize } from '../workload/synthetic.ts';
import { WorkloadError } from '../workload/workload-error.ts';
import { type OptionValues, UsageError } from './command.ts';

const BURSTY_CV = 3;
const SYNTHETIC_DURATION_S = 60;

export const WORKLOAD_OPTIONS = {
  trace: { type: 'text', value: 'TRACE', help: 'azure:FILE, mooncake:FILE or servegen:DIR[:CHUNK]' },
  synthetic: { type: 'text', value: 'KIND', help: 'arrivals made up from the seed', oneOf: ['poisson', 'bursty'] },
  rate: { type: 'number', value: 'R', help: 'synthetic: requests per second, default 1', min: 0.000_1, max: 100_000 },
  cv: { type: 'number', value: 'CV', help: `bursty: coefficient of variation of the gaps, default ${BURSTY_CV}`, min: 0.05, max: 100 },
  'prompt-tokens': { type: 'text', value: 'SIZE', help: 'synthetic: N or lognormal:MEAN:CV, default 1000' },
  'output-tokens': { type: 'text', value: 'SIZE', help: 'synthetic: N or lognormal:MEAN:CV, default 100' },
  from: { type: 'number', value: 'S', help: 'start at this second of the workload', default: 0, min: 0 },
  duration: { type: 'number', value: 'S', help: `take so many seconds of the workload, before --speed; synthetic: default ${SYNTHETIC_DURATION_S}`, min: 0.001 },
  speed: { type: 'number', value: 'X', help: 'play X times as fast', default: 1, min: 0.001, max: 10_000 },
  'max-requests': { type: 'number', value: 'N', help: 'stop after so many', min: 1, integer: true },
  slo: { type: 'text', value: 'FILE', help: 'SLO classes and their shares, as in config/slo/' },
  seed: { type: 'number', value: 'N', help: 'of arrivals, sizes and classes', default: 1, min: 0, max: Number.MAX_SAFE_INTEGER, integer: true },
} as const;

/** Throws `UsageError` for a workload that makes no sense or cannot be read. `classes` is `undefined` without `--slo`. */
export async function readWorkload(command: string, options: OptionValues<typeof WORKLOAD_OPTIONS>): Promise<{ readonly workload: Workload; readonly classes: readonly SloClass[] | undefined }> {
  const { seed, trace, duration } = options;
  const window = {
    fromS: options.from,
    speed: options.speed,
    ...(duration === undefined ? (trace === undefined ? { durationS: SYNTHETIC_DURATION_S } : {}) : { durationS: duration }),
    ...(options['max-requests'] === undefined ? {} : { requestsMax: options['max-requests'] }),
  };
  try {
    const workload = await loadWorkload(workloadSource(command, options), window, seed);
    return { workload, classes: options.slo === undefined ? undefined : await loadSloClasses(options.slo) };
  } catch (error) {
    throw error instanceof WorkloadError ? new UsageError(error.message, { cause: error }) : error;
  }
}

function workloadSource(command: string, options: { readonly trace?: string | undefined; readonly synthetic?: string | undefined; readonly rate?: number | undefined; readonly cv?: number | undefined; readonly 'prompt-tokens'?: string | undefined; readonly 'output-tokens'?: string | undefined }): WorkloadSource {
  const { trace, synthetic, rate, cv } = options;
  if ((trace === undefined) === (synthetic === undefined)) throw new UsageError(`${command}: want either --trace or --synthetic; see: paceline ${command} --help`);
  if (trace !== undefined) {
    const stray = (['rate', 'cv', 'prompt-tokens', 'output-tokens'] as const).find((name) => options[name] !== undefined);
    if (stray !== undefined) throw new UsageError(`--${stray}: is for --synthetic; a trace has its own${stray === 'rate' ? ', change it with --speed' : ''}`);
    return parseTraceSource(trace);
  }
  if (synthetic === 'poisson' && cv !== undefined) throw new UsageError('--cv: Poisson arrivals have a coefficient of variation of 1; take --synthetic bursty');
  const ratePerS = rate ?? 1;
  return {
    kind: 'synthetic',
    arrivals: synthetic === 'bursty' ? { kind: 'bursty', ratePerS, cv: cv ?? BURSTY_CV } : { kind: 'poisson', ratePerS },
    promptTokens: parseSize(options['prompt-tokens'] ?? '1000', '--prompt-tokens'),
    outputTokens: parseSize(options['output-tokens'] ?? '100', '--output-tokens'),
  };
}
