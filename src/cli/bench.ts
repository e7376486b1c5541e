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
import { UsageError, defineCommand } from './command.ts';
import { WORKLOAD_OPTIONS, readWorkload } from './workload-options.ts';

export const command = defineCommand({
  name: 'bench',
  summary: 'Plays a workload against an OpenAI-compatible server; reports attainment, latencies and energy.',
  options: {
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
    compare: { type: 'texts', value: 'FILE', help: 'send nothing: print results written by --out side by side' },
  },
  examples: [
    'paceline bench --synthetic poisson --rate 2 --prompt-tokens 1023 --output-tokens 99 --slo config/slo/chat.json',
    'paceline bench --trace azure:AzureLLMInferenceTrace_conv.csv --duration 600 --slo config/slo/mixed.json --agent-socket /run/paceline/agent.sock --window-s 620 --out paceline.json',
    'paceline bench --url http://127.0.0.1:8000 --lengths exact --trace mooncake:conversation_trace.jsonl --duration 300 --speed 0.5',
    'paceline bench --compare max-clock.json --compare paceline.json',
  ],
  run: async (options) => {
    if (options.compare.length > 0) return compareFiles(options.compare);
    const { seed } = options;
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

