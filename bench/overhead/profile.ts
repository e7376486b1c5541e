// Where the gateway's CPU goes: `node --cpu-prof` of the built gateway under the bench's load, without streaming and with, by
// function and by category. Prints Markdown: `node bench/overhead/profile.ts > bench/results/overhead/PROFILE.md`.
import { readFileSync, readdirSync, rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { spawnSync } from 'node:child_process';
import { cpus } from 'node:os';
import { findGateways, startGateway } from './gateways.ts';
import type { LoadOptions } from './rig.ts';
import { ROOT, buildLoad, createScratch, holdStreams, runLoad, startStub, writeRequest } from './rig.ts';

const HELP = `node bench/overhead/profile.ts [options]

Profiles \`paceline serve\` under load on its own core and prints what takes its CPU, as Markdown.

  --seconds N   of each load (default 8)
  --top N       functions listed (default 25)
  --keep DIR    leaves the .cpuprofile files there, for DevTools
  --help        this text
`;

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '8' },
    top: { type: 'string', default: '25' },
    keep: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

interface CpuProfile {
  readonly nodes: readonly { readonly id: number; readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number }; readonly children?: readonly number[] }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
  /** Microseconds of CLOCK_MONOTONIC, as `hrtime` is. */
  readonly startTime: number;
}

interface Path {
  readonly name: string;
  readonly what: string;
  readonly directive: string;
  readonly load: Pick<LoadOptions, 'mode' | 'conns'> & Partial<LoadOptions>;
  /** Slow streams that are in flight meanwhile, 1,000 events/s in all; what they cost is in it. */
  readonly held?: number;
  /** What its cost is divided by. */
  readonly unit: 'request' | 'event';
}

const WARM_S = 2;

const PATHS: readonly Path[] = [
  { name: 'request', what: 'Without streaming, 64 connections', directive: 'd=0', load: { mode: 'closed', conns: 64 }, unit: 'request' },
  { name: 'flood', what: 'Streaming at full speed, 16 streams', directive: 'e=20000 g=0', load: { mode: 'closed', conns: 16 }, unit: 'event' },
  { name: 'paced', what: 'Streaming at 2,000 events/s over 100 streams', directive: 'e=1000000 g=50000', load: { mode: 'closed', conns: 100, rampS: 1 }, unit: 'event' },
  { name: 'crowded', what: 'Without streaming, 300 requests/s, while 5,000 slow streams are in flight', directive: 'd=0', load: { mode: 'open', conns: 1_024, ratePerS: 300 }, held: 5_000, unit: 'request' },
];

if (values.help) process.stdout.write(HELP);
else await main();

async function main(): Promise<void> {
  const gateway = findGateways().present.find(({ name }) => name === 'paceline');
  if (gateway === undefined) throw new Error('no package.json of the gateway');
  const built = spawnSync('npm', ['run', '-s', 'build'], { cwd: ROOT, encoding: 'utf8' });
  if (built.status !== 0) throw new Error(`npm run build: ${built.stdout}${built.stderr}`);
  buildLoad();
  const scratch = createScratch();
  const stub = await startStub();
  try {
    process.stdout.write(`# Where the gateway's CPU goes\n\n\`node bench/overhead/profile.ts\` on ${cpus().length} x ${cpus()[0]?.model.trim()}, Node ${process.version}. Self time of samples every 200 µs in the measured window; idle time is left out. The profiler\nitself costs some: figures are for shares, not for comparison with those of \`bench:overhead\`. Native work done on behalf of a\nJavaScript function (a write to a socket, a parse) is that function's own line where the profiler names it.\n`);
    for (const path of PATHS) {
      const directory = values.keep ?? join(scratch.path, 'profiles');
      const running = await startGateway(gateway, stub.port, scratch.path, ['--cpu-prof', '--cpu-prof-interval=200', `--cpu-prof-dir=${directory}`, `--cpu-prof-name=${path.name}.cpuprofile`]);
      const request = writeRequest(join(scratch.path, `${path.name}.http`), path.directive, {});
      const slow = path.held === undefined ? null : await holdStreams({ port: running.port, request: writeRequest(join(scratch.path, 'slow.http'), `e=1000000 g=${path.held * 1_000}`, {}), conns: path.held, rampS: path.held / 1_000 }, 90_000);
      // Starting and compiling are left out: they are no part of what a request costs.
      const fromUs = Number(process.hrtime.bigint()) / 1e3 + WARM_S * 1e6;
      const result = await runLoad({ port: running.port, request, seconds: Number(values.seconds), warmS: WARM_S, cpuOf: running.pids(), stubPid: stub.pid, ...path.load });
      const toUs = Number(process.hrtime.bigint()) / 1e3;
      await slow?.close();
      await running.close();
      const file = readdirSync(directory).find((name) => name === `${path.name}.cpuprofile`);
      if (file === undefined) throw new Error(`no profile in ${directory}: the gateway was killed before it could write one`);
      const count = path.unit === 'request' ? result.requests : result.events;
      report(path, JSON.parse(readFileSync(join(directory, file), 'utf8')) as CpuProfile, { fromUs, toUs, count, cpuUs: (result.cpuS * 1e6) / count });
    }
  } finally {
    await stub.close();
    scratch.remove();
    if (values.keep === undefined) rmSync(join(scratch.path, 'profiles'), { recursive: true, force: true });
  }
}

function report(path: Path, profile: CpuProfile, { fromUs, toUs, count, cpuUs }: { readonly fromUs: number; readonly toUs: number; readonly count: number; readonly cpuUs: number }): void {
  const byNode = new Map(profile.nodes.map((node) => [node.id, node]));
  const functions = new Map<string, number>();
  const categories = new Map<string, number>();
  let total = 0;
  let atUs = profile.startTime;
  for (const [index, id] of profile.samples.entries()) {
    const frame = byNode.get(id)?.callFrame;
    const tookUs = profile.timeDeltas[index] ?? 0;
    atUs += tookUs;
    if (atUs < fromUs || atUs > toUs || frame === undefined || frame.functionName === '(idle)') continue;
    total += tookUs;
    const place = placeOf(frame);
    const name = frame.url === '' ? frame.functionName || '(unnamed native)' : `${frame.functionName || '(anonymous)'} ${place.file}:${frame.lineNumber + 1}`;
    functions.set(name, (functions.get(name) ?? 0) + tookUs);
    categories.set(place.category, (categories.get(place.category) ?? 0) + tookUs);
  }
  const share = (us: number): string => `${((100 * us) / total).toFixed(1)} %`;
  // A share of what a unit costs, so that a saving can be read off.
  const cost = (us: number): string => ((cpuUs * us) / total).toFixed(path.unit === 'request' ? 1 : 3);
  const rows = (taken: ReadonlyMap<string, number>, top: number): string =>
    [...taken]
      .toSorted((a, b) => b[1] - a[1])
      .slice(0, top)
      .map(([name, us]) => `| ${name} | ${share(us)} | ${cost(us)} |\n`)
      .join('');
  process.stdout.write(`\n## ${path.what}\n\n${count} ${path.unit}s at ${cpuUs.toFixed(path.unit === 'request' ? 0 : 2)} µs of CPU each, the profiler's own included.\n\n| category | share | µs/${path.unit} |\n|---|---|---|\n${rows(categories, 25)}\n| function | share | µs/${path.unit} |\n|---|---|---|\n${rows(functions, Number(values.top))}`);
}

/** Our code by file, packages by name, Node's own by module; what has no file is the engine's and the kernel's. */
function placeOf({ functionName, url }: { readonly functionName: string; readonly url: string }): { readonly category: string; readonly file: string } {
  if (url === '') return { category: functionName === '(garbage collector)' ? 'garbage collection' : functionName === '(program)' ? 'native and kernel, by no function' : `native and kernel: ${functionName || 'unnamed'}`, file: '' };
  if (url.startsWith('node:')) {
    const module = /^node:(?:internal\/)?(_?[a-z]+)/.exec(url)?.[1]?.replace('_', '') ?? 'other';
    return { category: `node:${module}`, file: url };
  }
  const file = url.startsWith('file:') ? relative(ROOT, fileURLToPath(url)) : url;
  const named = /node_modules\/((?:@[^/]+\/)?[^/]+)\/(.*)$/.exec(file);
  if (named !== null) return { category: `package ${named[1]}`, file: `${named[1]}/${named[2]?.split('/').at(-1)}` };
  const own = file.replace(/^dist\//, 'src/').replace(/\.js$/, '.ts');
  return { category: own, file: own };
}
