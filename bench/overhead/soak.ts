// Does the gateway leak: half load for long, half of the clients leaving at any moment, and the slope of its memory and its open
// sockets over that time, with how sure it is. Nothing here should grow.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { RunningGateway } from './gateways.ts';
import { findGateways, startGateway } from './gateways.ts';
import type { Stub } from './rig.ts';
import { ROOT, buildLoad, createScratch, openSockets, residentKib, runLoad, sleep, startStub, writeRequest } from './rig.ts';

const HELP = `npm run -s bench:soak -- [options]

Half of what \`paceline serve\` can take, for a while, half of the clients leaving at any moment: half said, unanswered, in the
middle of a stream. Prints the slope of heap, resident memory, open sockets and requests in flight, with 95 % intervals.

  --minutes N   how long, after one minute (a tenth of the time at most) to warm up (default 20)
  --rate N      requests per second instead of half of what saturates it
  --json        one JSON object
  --help        this text
`;

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '20' },
    rate: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

interface Sample {
  readonly atS: number;
  readonly heapKib: number;
  readonly residentKib: number;
  readonly sockets: number;
  readonly inFlight: number;
}

interface Slope {
  /** Units per hour. */
  readonly perHour: number;
  /** Half of the 95 % interval. */
  readonly plusMinus: number;
  readonly from: number;
  readonly to: number;
}

interface Result {
  readonly machine: string;
  readonly minutes: number;
  readonly ratePerS: number;
  readonly answered: number;
  readonly left: number;
  readonly failed: number;
  readonly samples: number;
  readonly heapKib: Slope;
  readonly residentKib: Slope;
  readonly sockets: Slope;
  readonly inFlight: Slope;
  readonly afterwards: { readonly sockets: number; readonly socketsBefore: number; readonly inFlight: number };
}

interface HeapReport {
  readonly path: string;
  reports: number;
}

const HEAP_REPORTER = new URL('heap-reporter.ts', import.meta.url).href;
const HEAP_MS_MAX = 10_000;
const SAMPLES = 240;
/** The mix: one load each, streams of which many are in the middle of something at any time. */
const MIX = [
  { name: 'short', directive: 'd=2000', share: 0.5 },
  { name: 'stream', directive: 'e=40 g=20000', share: 0.4 },
  { name: 'slow', directive: 'e=10 g=100000 d=300000', share: 0.1 },
] as const;
const LEAVE_SHARE = 0.5;
const SETTLE_MS = 5_000;

if (values.help) process.stdout.write(HELP);
else await main();

async function main(): Promise<void> {
  const seconds = Number(values.minutes) * 60;
  if (!(seconds > 0)) throw new Error(`--minutes: got ${values.minutes}, wanted a number above 0`);
  const gateway = findGateways().present.find(({ name }) => name === 'paceline');
  if (gateway === undefined) throw new Error('no package.json of the gateway');
  const built = spawnSync('npm', ['run', '-s', 'build'], { cwd: ROOT, encoding: 'utf8' });
  if (built.status !== 0) throw new Error(`npm run build: ${built.stdout}${built.stderr}`);
  buildLoad();
  const scratch = createScratch();
  const stub = await startStub();
  const heap: HeapReport = { path: join(scratch.path, 'heap'), reports: 0 };
  process.env['HEAP_REPORT'] = heap.path;
  const running = await startGateway(gateway, stub.port, scratch.path, ['--import', HEAP_REPORTER]);
  try {
    const socketsIdle = openSockets(running.pid);
    const ratePerS = values.rate === undefined ? await halfOfSaturation(running, stub, scratch.path) : Number(values.rate);
    const warmS = Math.min(60, seconds / 10);
    process.stderr.write(`soak: ${ratePerS.toFixed(0)} requests/s for ${values.minutes} minutes\n`);
    const loads = MIX.map(({ name, directive, share }) =>
      runLoad({ port: running.port, request: writeRequest(join(scratch.path, `soak-${name}.http`), directive, {}), mode: 'open', conns: 4_096, ratePerS: ratePerS * share, seconds, warmS, leaveShare: LEAVE_SHARE, stubPid: stub.pid }),
    );
    const samples = await sampleWhile(running, heap, { fromMs: warmS * 1_000, seconds });
    const results = await Promise.all(loads);
    await sleep(SETTLE_MS);
    const after = await readSample(running, heap, 0);
    const total = (of: (result: (typeof results)[number]) => number): number => results.reduce((sum, result) => sum + of(result), 0);
    print({
      machine: `${cpus().length} x ${cpus()[0]?.model.trim()}, Node ${process.version}`,
      minutes: Number(values.minutes),
      ratePerS,
      answered: total((result) => result.requests),
      left: total((result) => result.left),
      failed: total((result) => result.errors),
      samples: samples.length,
      heapKib: slopeOf(samples, (sample) => sample.heapKib),
      residentKib: slopeOf(samples, (sample) => sample.residentKib),
      sockets: slopeOf(samples, (sample) => sample.sockets),
      inFlight: slopeOf(samples, (sample) => sample.inFlight),
      // Kept connections to the model server stay open; requests in flight must be none.
      afterwards: { sockets: after.sockets, socketsBefore: socketsIdle, inFlight: after.inFlight },
    });
  } finally {
    await running.close();
    await stub.close();
    scratch.remove();
  }
}

/** Half of what answers come at when as many as it takes are asked for, with the same mix of streams. */
async function halfOfSaturation(running: RunningGateway, stub: Stub, scratch: string): Promise<number> {
  const request = writeRequest(join(scratch, 'soak-saturation.http'), 'e=20 g=1000', {});
  const { requests, seconds } = await runLoad({ port: running.port, request, mode: 'closed', conns: 256, seconds: 5, warmS: 2, stubPid: stub.pid });
  return Math.max(1, Math.round(requests / seconds / 2));
}

async function sampleWhile(running: RunningGateway, heap: HeapReport, { fromMs, seconds }: { readonly fromMs: number; readonly seconds: number }): Promise<Sample[]> {
  await sleep(fromMs);
  const everyMs = Math.max(500, (seconds * 1_000) / SAMPLES);
  const startedAtMs = performance.now();
  const samples: Sample[] = [];
  // The last one is taken while the load still runs.
  for (let turn = 0; turn * everyMs < seconds * 1_000 - 1_000; turn++) {
    await sleep(Math.max(0, startedAtMs + turn * everyMs - performance.now()));
    samples.push(await readSample(running, heap, (performance.now() - startedAtMs) / 1_000));
  }
  return samples;
}

/** The heap after a collection, from the reporter; the rest from /proc and the gateway's own page of metrics. */
async function readSample(running: RunningGateway, heap: HeapReport, atS: number): Promise<Sample> {
  const heapKib = await collectedHeapKib(running.pid, heap);
  const page = await fetch(`http://127.0.0.1:${running.adminPort}/metrics`).then((answer) => answer.text());
  const inFlight = Number(/^paceline_requests_in_flight (\S+)$/m.exec(page)?.[1] ?? Number.NaN);
  return { atS, heapKib, residentKib: residentKib([running.pid]), sockets: openSockets(running.pid), inFlight };
}

async function collectedHeapKib(pid: number, heap: HeapReport): Promise<number> {
  heap.reports += 1;
  process.kill(pid, 'SIGUSR2');
  const giveUpAtMs = performance.now() + HEAP_MS_MAX;
  for (;;) {
    const [count, kib] = (existsSync(heap.path) ? readFileSync(heap.path, 'utf8') : '').trim().split(' ').map(Number);
    if (count === heap.reports && kib !== undefined) return kib;
    if (performance.now() > giveUpAtMs) throw new Error(`no report of the heap within ${HEAP_MS_MAX / 1000} s`);
    await sleep(5);
  }
}

/**
 * Least squares, and twice its standard error. Samples that follow each other are alike, so they count for fewer: the residuals'
 * correlation r from one to the next leaves (1 - r) / (1 + r) of them (an autoregressive process of first order).
 */
function slopeOf(samples: readonly Sample[], of: (sample: Sample) => number): Slope {
  const count = samples.length;
  const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [meanS, meanValue] = [mean(samples.map(({ atS }) => atS)), mean(samples.map(of))];
  const spreadS = samples.reduce((sum, { atS }) => sum + (atS - meanS) ** 2, 0);
  const slope = samples.reduce((sum, sample) => sum + (sample.atS - meanS) * (of(sample) - meanValue), 0) / spreadS;
  const residuals = samples.map((sample) => of(sample) - meanValue - slope * (sample.atS - meanS));
  const squares = residuals.reduce((sum, residual) => sum + residual ** 2, 0);
  const neighbours = residuals.slice(1).reduce((sum, residual, index) => sum + residual * (residuals[index] ?? 0), 0);
  const r = squares === 0 ? 0 : Math.min(0.95, Math.max(0, neighbours / squares));
  const effective = Math.max(3, (count * (1 - r)) / (1 + r));
  const error = Math.sqrt(squares / count / (effective - 2)) / Math.sqrt(spreadS / count);
  return { perHour: slope * 3_600, plusMinus: 2 * error * 3_600, from: of(samples[0] as Sample), to: of(samples.at(-1) as Sample) };
}

function print(result: Result): void {
  if (values.json) {
    process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
    return;
  }
  const { answered, left, failed, afterwards } = result;
  process.stdout.write(`${result.ratePerS} requests/s for ${result.minutes} minutes: ${answered} answered, ${left} left by their clients, ${failed} failed\n`);
  const rows = [
    ['heap after collection', result.heapKib, 'KiB'],
    ['resident memory', result.residentKib, 'KiB'],
    ['open sockets', result.sockets, ''],
    ['requests in flight', result.inFlight, ''],
  ] as const;
  for (const [what, { perHour, plusMinus, from, to }, unit] of rows) {
    const verdict = Math.abs(perHour) <= plusMinus ? 'no slope to be seen' : perHour < 0 ? 'falls' : 'GROWS';
    process.stdout.write(`${what.padEnd(22)} ${perHour.toFixed(1)} ± ${plusMinus.toFixed(1)} ${unit}/h (${from} to ${to}): ${verdict}\n`);
  }
  process.stdout.write(`${SETTLE_MS / 1000} s after the last client: ${afterwards.inFlight} requests in flight, ${afterwards.sockets} sockets (${afterwards.socketsBefore} before)\n${result.machine}; slopes over ${result.samples} samples, 95 % intervals\n`);
}
