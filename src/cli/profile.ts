// `paceline profile`: measures what a replica takes and burns, through its OpenAI endpoint and the agent of its node.
import { accessSync, constants, writeFileSync } from 'node:fs';
import { randomInt } from 'node:crypto';
import { hostname } from 'node:os';
import { dirname } from 'node:path';
import { AgentError, type AgentAddress } from '../agent/connection.ts';
import { createPerformanceModel } from '../frontier/performance-model.ts';
import { parseProfile, ProfileFileError } from '../profile-file.ts';
import { EndpointError, type EndpointUnderTest, openEndpoint } from '../profiler/endpoint.ts';
import { JournalError, openJournal } from '../profiler/journal.ts';
import { type Measurement, workText } from '../profiler/measurement.ts';
import { createNodeMeter, type DeviceFacts } from '../profiler/node-meter.ts';
import { wholeClocks } from '../profiler/plan.ts';
import { profileOf } from '../profiler/profile-of.ts';
import { sweepPage } from '../profiler/report.ts';
import { runSweep, type SweepProgress } from '../profiler/run-sweep.ts';
import { type Serving, worksOf } from '../profiler/works.ts';
import { defineCommand, UsageError } from './command.ts';

export const command = defineCommand({
  name: 'profile',
  summary: "Measures a replica's time and energy at its clocks, and writes a profile. The replica must be drained: nobody else may use it.",
  options: {
    url: { type: 'text', value: 'URL', help: 'the model server itself, not a gateway', default: 'http://127.0.0.1:8000' },
    model: { type: 'text', value: 'NAME', help: 'default: the first of GET /v1/models' },
    'api-key': { type: 'text', value: 'KEY', help: 'default: $PACELINE_API_KEY' },
    endpoint: { type: 'text', value: 'API', help: 'what is called', default: 'completions', oneOf: ['completions', 'chat'] },
    'agent-socket': { type: 'text', value: 'PATH', help: 'of paceline-agent on its node; without it there is no energy, and no profile' },
    devices: { type: 'text', value: 'IDS', help: "the agent's ids of the replica's devices, separated by commas" },
    observe: { type: 'flag', help: 'sets no clock: measures at the one that is found, as one operating point' },
    'clock-min': { type: 'number', value: 'MHZ', help: 'no clock below', min: 1 },
    'clock-max': { type: 'number', value: 'MHZ', help: 'no clock above', min: 1 },
    'max-batch-tokens': { type: 'number', value: 'N', help: "the engine's: vLLM's --max-num-batched-tokens", min: 16, max: 1_000_000, integer: true },
    'max-sequences': { type: 'number', value: 'N', help: "the engine's: vLLM's --max-num-seqs", min: 1, max: 4_096, integer: true },
    'kv-tokens': { type: 'number', value: 'N', help: "that its KV memory holds; default: as vLLM's metrics say", min: 64, integer: true },
    'max-output-tokens': { type: 'number', value: 'N', help: 'of the answers that are asked for; a second of decoding must be shorter', default: 2048, min: 32, integer: true },
    measurements: { type: 'number', value: 'N', help: 'at most so many; more clocks are looked at where the curve bends', default: 60, min: 5, max: 2_000, integer: true },
    device: { type: 'text', value: 'TEXT', help: "what the devices are; default: as the agent says" },
    engine: { type: 'text', value: 'NAME', help: 'what serves the model', default: 'vllm' },
    'engine-version': { type: 'text', value: 'TEXT', help: 'its version' },
    licence: { type: 'text', value: 'TEXT', help: 'of the profile', default: 'CC0-1.0' },
    name: { type: 'text', value: 'TEXT', help: 'of the profile; default: model and device' },
    out: { type: 'text', value: 'FILE', help: 'the profile', default: 'profile.json' },
    html: { type: 'text', value: 'FILE', help: 'plots and all measurements as a page; default: beside the profile' },
    journal: { type: 'text', value: 'FILE', help: 'what was measured so far; a sweep that was stopped goes on from there; default: beside the profile' },
    json: { type: 'flag', help: 'print a summary as JSON and nothing else on stdout' },
  },
  examples: [
    'paceline profile --url http://127.0.0.1:8000 --agent-socket /run/paceline/agent.sock --devices nvml:GPU-1234 --max-batch-tokens 8192 --max-sequences 256 --out config/profiles/mine.json',
    'paceline profile --observe --agent-socket /run/paceline/agent.sock --devices nvml:GPU-1234 --max-batch-tokens 8192 --max-sequences 256',
  ],
  run: async (options) => {
    try {
      return await profile(options);
    } catch (error) {
      if (error instanceof JournalError) throw new UsageError(error.message);
      if (!(error instanceof EndpointError || error instanceof AgentError || error instanceof ProfileFileError)) throw error;
      process.stderr.write(`paceline profile: ${error.message}\n`);
      return 1;
    }
  },
});

interface Options {
  readonly url: string;
  readonly model: string | undefined;
  readonly 'api-key': string | undefined;
  readonly endpoint: string;
  readonly 'agent-socket': string | undefined;
  readonly devices: string | undefined;
  readonly observe: boolean;
  readonly 'clock-min': number | undefined;
  readonly 'clock-max': number | undefined;
  readonly 'max-batch-tokens': number | undefined;
  readonly 'max-sequences': number | undefined;
  readonly 'kv-tokens': number | undefined;
  readonly 'max-output-tokens': number;
  readonly measurements: number;
  readonly device: string | undefined;
  readonly engine: string;
  readonly 'engine-version': string | undefined;
  readonly licence: string;
  readonly name: string | undefined;
  readonly out: string;
  readonly html: string | undefined;
  readonly journal: string | undefined;
  readonly json: boolean;
}

async function profile(options: Options): Promise<number> {
  const { observe, out } = options;
  const now = (): number => performance.now();
  const devices = (options.devices ?? '').split(',').filter((device) => device !== '');
  const address: AgentAddress | null = options['agent-socket'] === undefined ? null : { kind: 'socket', path: options['agent-socket'] };
  if (address === null && !observe) throw new UsageError('--agent-socket PATH is missing: clocks are set and energy is read through the agent; without one only --observe measures, and only times');
  if (address !== null && devices.length === 0) throw new UsageError("--devices IDS is missing: the agent's ids of the devices that the replica runs on");
  const html = options.html ?? `${out.replace(/\.json$/, '')}.html`;
  for (const path of [out, html]) refuseWithoutPlace(path);
  const stop = new AbortController();
  const onSignal = (): void => stop.abort();
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
  const meter = address === null ? null : createNodeMeter(address, devices, now);
  let endpoint: EndpointUnderTest | null = null;
  const progress = printer(options.json);
  try {
    const facts = await meter?.facts();
    const clocksMhz = observe ? [] : clocksOf(facts ?? [], options);
    endpoint = await openEndpoint({ url: options.url, model: options.model ?? null, apiKey: options['api-key'] ?? process.env['PACELINE_API_KEY'] ?? null, endpoint: options.endpoint === 'chat' ? 'chat' : 'completions', salt: randomInt(2 ** 31), now, signal: stop.signal });
    await endpoint.calibrate();
    const serving = await servingOf(options, endpoint);
    const { works: wanted, probes } = worksOf(serving, await prefillMsPerToken(endpoint, serving, clocksMhz));
    const subject = { model: endpoint.model, devices, url: options.url, serving, observe };
    const journal = openJournal(options.journal ?? `${out.replace(/\.json$/, '')}.sweep.ndjson`, subject, wanted);
    const { works } = journal;
    if (options.measurements < works.length) throw new UsageError(`--measurements: got ${options.measurements}, want at least ${works.length}: so many works make one clock whole, and without one there is no profile`);
    if (journal.done.length > 0) progress.say(`going on after ${journal.done.length} measurements of the journal`);
    const ended = await runSweep({
      bench: { endpoint, meter, outputTokensMax: options['max-output-tokens'], now },
      control: address === null || observe ? null : { address, devices },
      plan: { clocksMhz, works, probes, measurementsMax: options.measurements },
      journal,
      signal: stop.signal,
      onProgress: progress.show,
      onTrouble: progress.say,
    });
    progress.end();
    if (ended === 'stopped') {
      process.stderr.write(`stopped after ${journal.done.length} measurements; devices are at default clocks. The same command goes on from there.\n`);
      return 130;
    }
    return await finish(options, html, { endpoint, serving, facts: (await meter?.facts()) ?? [], done: journal.done, clocks: observe ? [null] : wholeClocks(journal.done, works) });
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    process.stderr.write('stopped before anything was measured\n');
    return 130;
  } finally {
    progress.end();
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
    await meter?.close();
    await endpoint?.close();
  }
}

/** The device's own list, within what the policy and the operator allow; of several devices, what all have. */
function clocksOf(facts: readonly DeviceFacts[], { 'clock-min': min = 0, 'clock-max': max = Number.POSITIVE_INFINITY }: Options): readonly number[] {
  const fixed = facts.find(({ controls }) => !controls.includes('clock'));
  if (fixed !== undefined) throw new UsageError(`the agent lets nobody (or not this user) set the clock of ${fixed.device}: allow it in its policy, or measure with --observe`);
  const [first, ...others] = facts;
  const clocks = (first?.clocksMhz ?? []).filter((clockMhz) => others.every((other) => other.clocksMhz.includes(clockMhz)) && facts.every(({ floorMhz, ceilingMhz }) => clockMhz >= (floorMhz ?? 0) && clockMhz <= (ceilingMhz ?? Number.POSITIVE_INFINITY)));
  const allowed = clocks.filter((clockMhz) => clockMhz >= min && clockMhz <= max).toSorted((a, b) => a - b);
  if (allowed.length === 0) throw new UsageError(`no clock is left to measure: the devices have ${clocks.length === 0 ? 'none in common' : `${clocks[0]} to ${clocks.at(-1)} MHz`}, allowed are ${min} to ${max} MHz`);
  return allowed;
}

async function servingOf(options: Options, endpoint: EndpointUnderTest): Promise<Serving> {
  const kvTokens = options['kv-tokens'] ?? (await endpoint.kvTokens());
  const [maxBatchTokens, maxSequences] = [options['max-batch-tokens'], options['max-sequences']];
  const missing = [...(maxBatchTokens === undefined ? ['--max-batch-tokens'] : []), ...(maxSequences === undefined ? ['--max-sequences'] : []), ...(kvTokens === null ? ['--kv-tokens'] : [])];
  if (maxBatchTokens === undefined || maxSequences === undefined || kvTokens === null) throw new UsageError(`${missing.join(', ')}: missing; what the engine was started with cannot be measured`);
  if (maxBatchTokens < maxSequences) throw new UsageError(`--max-batch-tokens: got ${maxBatchTokens}, below --max-sequences ${maxSequences}: a step could not hold one token of each`);
  return { maxBatchTokens, maxSequences, kvTokens };
}

/** About, at the slowest clock there will be; asked at the clock that is there now, which by default is the fastest. */
async function prefillMsPerToken(endpoint: EndpointUnderTest, { maxBatchTokens }: Serving, clocksMhz: readonly number[]): Promise<number> {
  const startedAtMs = performance.now();
  const answer = await endpoint.ask({ promptTokens: Math.min(2_048, maxBatchTokens), outputTokens: 1 });
  const slowdown = (clocksMhz.at(-1) ?? 1) / (clocksMhz[0] ?? 1);
  return (slowdown * (answer.firstTokenAtMs - startedAtMs)) / answer.promptTokens;
}

interface Sweep {
  readonly endpoint: EndpointUnderTest;
  readonly serving: Serving;
  readonly facts: readonly DeviceFacts[];
  readonly done: readonly Measurement[];
  readonly clocks: readonly (number | null)[];
}

async function finish(options: Options, html: string, { endpoint, serving, facts, done, clocks }: Sweep): Promise<number> {
  const device = options.device ?? facts[0]?.name ?? 'unknown device';
  const name = options.name ?? `${endpoint.model.split('/').at(-1)}.${device}`.toLowerCase().replaceAll(/[^a-z0-9.-]+/g, '-').slice(0, 60).replace(/[-.]+$/, '');
  const measuredAt = new Date().toISOString().slice(0, 10);
  const switches = facts.flatMap(({ switchMs }) => (switchMs === null ? [] : [switchMs]));
  const made = profileOf(done, clocks, {
    name,
    model: endpoint.model,
    engine: { name: options.engine, ...(options['engine-version'] === undefined ? {} : { version: options['engine-version'] }) },
    deviceGroup: { device, devices: Math.max(1, facts.length) },
    serving,
    switch: { latencyMs: switches.length === 0 ? SWITCH_MS_UNKNOWN : Number(Math.max(...switches).toPrecision(3)) },
    provenance: {
      measuredBy: `paceline profile on ${hostname()}`,
      measuredOn: `${Math.max(1, facts.length)} × ${device}: ${facts.map((one) => one.device).join(', ')}`,
      measuredAt,
      method: `${done.length} measurements through ${options.endpoint}: prompts back to back (median distance of answers), streams in steady state (median slope), energy of the devices' counters over ${Math.round(done.reduce((sum, { windowMs }) => sum + windowMs, 0) / done.length)} ms each. Launch overhead is in the rows. ${options.observe ? 'At the clock that was found; nothing was set.' : `Clocks measured whole: ${clocks.join(', ')} MHz.`}`,
      sources: [],
      licence: options.licence,
      madeBy: 'paceline profile',
    },
  });
  if (made === null) {
    const times = done.filter(({ timeMs }) => timeMs !== null);
    write(html, sweepPage(name, `${measuredAt}, times only: nobody told the energy of the devices, so this is no profile.`, null, done));
    const text = times.map(({ work, timeMs }) => `  ${workText(work)}: ${timeMs?.toPrecision(4)} ms`).join('\n');
    process.stdout.write(options.json ? `${JSON.stringify({ profile: null, measurements: done.length, times }, null, 2)}\n` : `Times only: no energy could be measured, so there is no profile.\n${text}\n${html} has all of it.\n`);
    return 0;
  }
  const model = createPerformanceModel(parseProfile(made, options.out));
  write(options.out, `${JSON.stringify(made, null, 1)}\n`);
  write(html, sweepPage(name, `${made.provenance.measuredOn}; ${measuredAt}; ${made.provenance.method}`, model, done));
  const { prefill, decode } = model.fitError;
  const summary = { profile: options.out, page: html, measurements: done.length, points: made.points.map(({ id }) => id), fitError: model.fitError };
  process.stdout.write(options.json ? `${JSON.stringify(summary, null, 2)}\n` : `${options.out}: ${made.points.length} operating points of ${done.length} measurements; the fit is off by ${prefill.timePct.toFixed(1)} % (prefill time), ${prefill.energyPct.toFixed(1)} % (energy), ${decode.timePct.toFixed(1)} % (decode time), ${decode.energyPct.toFixed(1)} % (energy) of its own rows.\n${html} has the plots. Look at it with: paceline frontier show ${options.out}\n`);
  return 0;
}

/** What a call and a settling clock take on cards that were measured (FITS: 10–20 ms and 5–25 ms). */
const SWITCH_MS_UNKNOWN = 40;

/** An hour of measuring is not the time to find that out. */
function refuseWithoutPlace(path: string): void {
  try {
    accessSync(dirname(path), constants.W_OK);
  } catch (error) {
    throw new UsageError(`${path}: cannot be written there: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function write(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (error) {
    throw new UsageError(`${path}: ${error instanceof Error ? error.message : String(error)}; what was measured is in the journal`);
  }
}

/** On a terminal one line that is written over; else a line for every tenth measurement. */
function printer(quiet: boolean): { readonly show: (progress: SweepProgress) => void; readonly say: (message: string) => void; readonly end: () => void } {
  const { stderr } = process;
  const live = stderr.isTTY && !quiet;
  let open = false;
  const end = (): void => {
    if (open) stderr.write('\n');
    open = false;
  };
  return {
    show: ({ done, expected, next, leftMs }) => {
      const text = `${done} of about ${expected} measured${leftMs === null ? '' : `, ${Math.max(1, Math.round(leftMs / 1_000))} s left`}; ${next.clockMhz === null ? 'as found' : `${next.clockMhz} MHz`}: ${workText(next.work)}`;
      if (live) stderr.write(`\r${text.padEnd(100)}`);
      else if (done % 10 === 0) stderr.write(`${text}\n`);
      open = live;
    },
    say: (message) => {
      end();
      stderr.write(`${message}\n`);
    },
    end,
  };
}
