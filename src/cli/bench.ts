// paceline bench: plays a workload against an OpenAI-compatible server and reports attainment, latencies and energy.
import { readFile, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import type { BenchResult } from '../loadgen/bench-result.ts';
import { isBenchResult } from '../loadgen/bench-result.ts';
import { AgentError } from '../loadgen/energy-meter.ts';
import { formatComparison, formatResult } from '../loadgen/format-result.ts';
import { IN_FLIGHT_MAX } from '../loadgen/limits.ts';
import { LoadError } from '../loadgen/load-target.ts';
import { createProgressPrinter } from '../loadgen/progress.ts';
import type { LoadOptions } from '../loadgen/run-load.ts';
import { runLoad } from '../loadgen/run-load.ts';
import type { Workload } from '../workload/request.ts';
import type { Arm } from '../compare/arm-target.ts';
import type { ComparisonOptions } from '../compare/run-comparison.ts';
import { armsOf, checkRounds, COMPARISON_OPTIONS, metersOf, playComparison, reportFrom } from './bench-comparison.ts';
import { type OptionValues, UsageError, defineCommand } from './command.ts';
import { WORKLOAD_OPTIONS, readWorkload } from './workload-options.ts';

const BENCH_OPTIONS = {
  url: { type: 'text', value: 'URL', help: 'the server: a gateway or an engine', default: 'http://127.0.0.1:8080' },
  ...WORKLOAD_OPTIONS,
  'prompt-salt': { type: 'number', value: 'N', help: 'chooses the words of the prompts; default: others each run, so that no run finds the prefix cache warm from the last one', min: 0, max: 2 ** 31 - 1, integer: true },
  endpoint: { type: 'text', value: 'API', help: 'what is called', default: 'chat', oneOf: ['chat', 'completions'] },
  lengths: { type: 'text', value: 'HOW', help: 'hidden: the emulated engine alone knows them; exact: max_tokens and ignore_eos, for real engines; capped: max_tokens alone, for those that refuse ignore_eos', default: 'hidden', oneOf: ['hidden', 'exact', 'capped'] },
  'max-tokens': { type: 'number', value: 'N', help: 'hidden lengths: the max_tokens of all requests, default 1024 or what the longest needs', min: 1, integer: true },
  model: { type: 'text', value: 'NAME', help: 'default: the first of GET /v1/models' },
  'api-key': { type: 'text', value: 'KEY', help: 'sent as a bearer token; default: $PACELINE_API_KEY' },
  header: { type: 'texts', value: 'NAME:VALUE', help: 'a further request header' },
  timeout: { type: 'number', value: 'S', help: 'of each request', default: 600, min: 0.001, max: 86_400 },
  'max-in-flight': { type: 'number', value: 'N', help: 'further requests are not sent and count as failed', default: IN_FLIGHT_MAX, min: 1, max: IN_FLIGHT_MAX, integer: true },
  'agent-socket': { type: 'texts', value: 'PATH', help: 'paceline-agent to read energy from' },
  devices: { type: 'texts', value: 'IDS', help: 'only these devices, separated by commas' },
  'window-s': { type: 'number', value: 'S', help: 'measure energy for exactly so long from the first request, idle included; the same for runs to be compared', min: 0.001, max: 604_800 },
  json: { type: 'flag', help: 'print the result as JSON and nothing else on stdout' },
  out: { type: 'text', value: 'FILE', help: 'write the result as JSON' },
  ...COMPARISON_OPTIONS,
} as const;

export const command = defineCommand({
  name: 'bench',
  summary: 'Plays a workload against an OpenAI-compatible server; reports attainment, latencies and energy.',
  options: BENCH_OPTIONS,
  examples: [
    'paceline bench --synthetic poisson --rate 2 --prompt-tokens 1023 --output-tokens 99 --slo config/slo/chat.json',
    'paceline bench --trace azure:AzureLLMInferenceTrace_conv.csv --duration 600 --slo config/slo/mixed.json --agent-socket /run/paceline/agent.sock --window-s 620 --out paceline.json',
    'paceline bench --url http://127.0.0.1:8000 --lengths exact --trace mooncake:conversation_trace.jsonl --duration 300 --speed 0.5',
    'paceline bench --compare max-clock.json --compare paceline.json',
    'paceline bench --compare max-clock=paceline.yaml#max-clock --compare paceline=paceline.yaml#paceline --synthetic poisson --rate 4 --slo config/slo/chat.json --meter agent:/run/paceline/agent.sock --report ab.html --out ab.json',
    'paceline bench --compare plain=http://10.0.0.1:8000 --compare gateway=http://10.0.0.2:8080 --lengths exact --trace azure:trace.csv --duration 300 --meter dcgm:http://10.0.0.1:9400 --report ab.html',
  ],
  run: async (options) => {
    if (options['report-from'] !== undefined) return reportFrom(options['report-from'], options);
    const { seed } = options;
    if (options.compare.length > 0) {
      const arms = armsOf(options.compare);
      return arms === null ? compareFiles(options.compare) : playComparison(await comparisonOf(arms, options), options);
    }
    if (options.report !== undefined || options.meter.length > 0) throw new UsageError(`--${options.report === undefined ? 'meter' : 'report'}: is for an A/B; name its arms with --compare`);
    const headers = parseHeaders(options.header);
    const { workload, classes } = await readWorkload('bench', options);
    const apiKey = options['api-key'] ?? process.env['PACELINE_API_KEY'];
    const [maxTokens, windowS, promptSalt] = [options['max-tokens'], options['window-s'], options['prompt-salt']];
    return play(
      {
        url: options.url,
        workload,
        seed,
        endpoint: options.endpoint === 'completions' ? 'completions' : 'chat',
        lengths: options.lengths === 'exact' || options.lengths === 'capped' ? options.lengths : 'hidden',
        timeoutMs: options.timeout * 1000,
        inFlightMax: options['max-in-flight'],
        agentSockets: options['agent-socket'],
        devices: options.devices.flatMap((list) => list.split(',')).filter((device) => device !== ''),
        headers,
        command: commandLine(process.argv.slice(2)),
        ...(classes === undefined ? {} : { classes }),
        ...(maxTokens === undefined ? {} : { maxTokens }),
        ...(options.model === undefined ? {} : { model: options.model }),
        ...(apiKey === undefined ? {} : { apiKey }),
        ...(windowS === undefined ? {} : { windowS }),
        ...(promptSalt === undefined ? {} : { promptSalt }),
      },
      { json: options.json, out: options.out },
    );
  },
});

/** Throws `UsageError`. */
async function comparisonOf(arms: readonly Arm[], options: OptionValues<typeof BENCH_OPTIONS>): Promise<ComparisonOptions> {
  checkRounds(options.rounds, arms.length);
  if (options['window-s'] !== undefined) throw new UsageError('--window-s: an A/B measures every turn over --duration and --tail; set those');
  const meters = metersOf({ meter: options.meter, agentSockets: options['agent-socket'], devices: options.devices.flatMap((list) => list.split(',')).filter((device) => device !== '') }, arms);
  // Synthetic arrivals are others in each round; a trace is the same, with other classes drawn.
  const loads = await Promise.all(Array.from({ length: options.trace === undefined ? options.rounds : 1 }, (_, round) => readWorkload('bench', { ...options, seed: options.seed + round })));
  const [first] = loads;
  if (first === undefined) throw new UsageError('--rounds: want at least one');
  const rounds = Array.from({ length: options.rounds }, (_, round) => ({ workload: (loads[round] ?? first).workload, seed: options.seed + round }));
  const apiKey = options['api-key'] ?? process.env['PACELINE_API_KEY'];
  const [maxTokens, saltBase] = [options['max-tokens'], options['prompt-salt']];
  const lastAtMs = Math.max(...rounds.map(({ workload }) => (workload.requests.at(-1)?.atMs ?? 0) - (workload.requests[0]?.atMs ?? 0)));
  return {
    arms,
    rounds,
    warmUp: options['warm-up'] === 0 ? null : warmUpOf(first.workload, options['warm-up']),
    seed: options.seed,
    restS: options.rest,
    warmUpS: options['warm-up'],
    loadS: Math.max(Math.ceil(lastAtMs / 1000), options['max-requests'] === undefined && options.duration !== undefined ? options.duration / options.speed : 0),
    tailS: options.tail,
    meters,
    load: {
      endpoint: options.endpoint === 'completions' ? 'completions' : 'chat',
      lengths: options.lengths === 'exact' || options.lengths === 'capped' ? options.lengths : 'hidden',
      timeoutMs: options.timeout * 1000,
      inFlightMax: options['max-in-flight'],
      headers: parseHeaders(options.header),
      ...(maxTokens === undefined ? {} : { maxTokens }),
      ...(options.model === undefined ? {} : { model: options.model }),
      ...(apiKey === undefined ? {} : { apiKey }),
    },
    command: commandLine(process.argv.slice(2)),
    ...(first.classes === undefined ? {} : { classes: first.classes }),
    ...(saltBase === undefined ? {} : { saltBase }),
  };
}

/** The beginning of the first round's load. */
function warmUpOf(workload: Workload, seconds: number): Workload {
  const startsAtMs = workload.requests[0]?.atMs ?? 0;
  return { name: `warm-up of ${workload.name}`, requests: workload.requests.filter(({ atMs }) => atMs - startsAtMs <= seconds * 1000) };
}

/** Ctrl-C ends the run and reports; a second one ends the process as it always does. */
async function play(load: LoadOptions, { json, out }: { readonly json: boolean; readonly out: string | undefined }): Promise<number> {
  const interrupt = new AbortController();
  const onInterrupt = () => interrupt.abort();
  process.once('SIGINT', onInterrupt).once('SIGTERM', onInterrupt);
  const progress = createProgressPrinter(process.stderr);
  let result: BenchResult;
  try {
    result = await runLoad({ ...load, signal: interrupt.signal, onProgress: progress.show, onWarning: progress.warn });
  } catch (error) {
    if (!(error instanceof LoadError || error instanceof AgentError)) throw error;
    progress.warn(error.message);
    return 1;
  } finally {
    progress.end();
    process.off('SIGINT', onInterrupt).off('SIGTERM', onInterrupt);
  }
  const text = JSON.stringify(result, null, 2);
  process.stdout.write(`${json ? text : formatResult(result)}\n`);
  if (out !== undefined) {
    try {
      await writeFile(out, `${text}\n`);
    } catch (error) {
      progress.warn(`--out ${out}: ${error instanceof Error ? error.message : String(error)}; the result stands above only`);
      return 1;
    }
  }
  if (interrupt.signal.aborted) return 130;
  return result.completed === 0 ? 1 : 0;
}

function parseHeaders(texts: readonly string[]): Readonly<Record<string, string>> {
  return Object.fromEntries(
    texts.map((text) => {
      const [, name, value] = /^([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([\t\x20-\x7E]*)$/.exec(text) ?? [];
      if (name === undefined || value === undefined) throw new UsageError(`--header: got '${text}', want NAME:VALUE`);
      return [name.toLowerCase(), value] as const;
    }),
  );
}

/** As typed, but for the key: results are passed on. */
function commandLine(argv: readonly string[]): string {
  const shown = argv.map((word, index) => (argv[index - 1] === '--api-key' ? '***' : word.replace(/^(--api-key=).*/, '$1***').replace(/^(authorization:).*/i, '$1 ***')));
  return ['paceline', ...shown].map((word) => (/^[\w@%+=:,./*-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`)).join(' ');
}

async function compareFiles(files: readonly string[]): Promise<number> {
  const runs = await Promise.all(
    files.map(async (file) => {
      try {
        const parsed: unknown = JSON.parse(await readFile(file, 'utf8'));
        if (!isBenchResult(parsed)) throw new Error('not a result written by --out');
        return { label: basename(file).replace(/\.json$/, ''), result: parsed };
      } catch (error) {
        throw new UsageError(`--compare ${file}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }),
  );
  process.stdout.write(`${formatComparison(runs)}\n`);
  return 0;
}

