// What telemetry takes of the gateway's CPU, per request: nobody listening, a line in the log for each, an SDK that samples a hundredth,
// one that samples all, each in its own process on one core, round by round in turn.
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { cpus } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { type Gateway, startGateway } from '../overhead/gateways.ts';
import { buildLoad, createScratch, quartiles, ROOT, runLoad, startStub, type Stub, writeRequest } from '../overhead/rig.ts';

const HELP = `npm run -s bench:telemetry -- [options]

CPU of the gateway per request, at a fixed rate: without an SDK, with a log line for each request, with an SDK that samples 1 % and
100 % of the requests and sends them to a receiver here. Needs gcc.

  --rounds N     interleaved rounds (default 5); figures are medians over them, of differences within a round
  --seconds N    of each measurement (default 5)
  --against DIR  a build of another version (its dist folder), measured too, as it is without an SDK
  --json         one JSON object instead of a table
  --help         this text
`;

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '5' }, seconds: { type: 'string', default: '5' }, against: { type: 'string' }, json: { type: 'boolean', default: false }, help: { type: 'boolean', default: false } },
});

/** Every span names its method. */
const SPAN_START = Buffer.from('http.request.method');

interface Variant {
  readonly name: string;
  readonly main: string;
  readonly logsRequests: boolean;
  /** `null`: no SDK. */
  readonly sdk: Readonly<Record<string, string>> | null;
}

interface Load {
  readonly name: string;
  /** See bench/overhead/load/stub.c. */
  readonly directive: string;
  readonly ratePerS: number;
}

const LOADS: readonly Load[] = [
  { name: 'whole answer', directive: 'd=0', ratePerS: 400 },
  { name: 'stream of 4 events', directive: 'e=4 g=2000', ratePerS: 250 },
];
const CONNS = 1_024;
const WARM_S = 2;

interface Measured {
  readonly cpuUsPerRequest: number;
  readonly spansPerRequest: number;
}

if (values.help) process.stdout.write(HELP);
else await main();

async function main(): Promise<void> {
  const [rounds, seconds] = [Number(values.rounds), Number(values.seconds)];
  if (!(rounds >= 1 && seconds >= 1)) throw new Error(`--rounds and --seconds: got '${values.rounds}' and '${values.seconds}', want numbers from 1`);
  const built = spawnSync('npx', ['tsc', '-p', 'tsconfig.build.json'], { cwd: ROOT, encoding: 'utf8' });
  if (built.status !== 0) throw new Error(`the gateway does not build: ${built.stdout}`);
  buildLoad();
  const scratch = createScratch();
  const receiver = await startReceiver();
  const stub = await startStub();
  const measured = new Map<string, Measured[]>();
  try {
    const variants = variantsOf(receiver.url);
    for (let round = 0; round < rounds; round++) {
      for (let turn = 0; turn < variants.length; turn++) {
        const variant = variants[(turn + round) % variants.length] as Variant;
        process.stderr.write(`round ${round + 1} of ${rounds}: ${variant.name}\n`);
        for (const [load, result] of await measure(variant, { stub, scratch: scratch.path, seconds, spans: receiver.spans })) {
          const key = `${variant.name}\n${load}`;
          measured.set(key, [...(measured.get(key) ?? []), result]);
        }
      }
    }
    report(variants, measured);
  } finally {
    await stub.close();
    receiver.close();
    scratch.remove();
  }
}

function variantsOf(receiverUrl: string): Variant[] {
  const main = join(ROOT, 'dist/main.js');
  const sampling = (share: string): Record<string, string> => ({ OTEL_EXPORTER_OTLP_ENDPOINT: receiverUrl, OTEL_EXPORTER_OTLP_PROTOCOL: 'http/protobuf', OTEL_METRICS_EXPORTER: 'none', OTEL_TRACES_SAMPLER: 'parentbased_traceidratio', OTEL_TRACES_SAMPLER_ARG: share });
  return [
    { name: 'off', main, logsRequests: false, sdk: null },
    ...(values.against === undefined ? [] : [{ name: 'the other build', main: join(resolve(values.against), 'main.js'), logsRequests: false, sdk: null }]),
    { name: 'a log line each', main, logsRequests: true, sdk: null },
    { name: 'SDK, metrics alone', main, logsRequests: false, sdk: { ...sampling('0'), OTEL_TRACES_EXPORTER: 'none', OTEL_METRICS_EXPORTER: 'otlp', OTEL_METRIC_EXPORT_INTERVAL: '1000' } },
    { name: 'SDK, 1 % sampled', main, logsRequests: false, sdk: sampling('0.01') },
    { name: 'SDK, 100 % sampled', main, logsRequests: false, sdk: sampling('1') },
  ];
}

async function measure(variant: Variant, { stub, scratch, seconds, spans }: { readonly stub: Stub; readonly scratch: string; readonly seconds: number; readonly spans: () => number }): Promise<[string, Measured][]> {
  const running = await startGateway(gatewayOf(variant), stub.port, scratch);
  try {
    const results: [string, Measured][] = [];
    for (const { name, directive, ratePerS } of LOADS) {
      const request = writeRequest(join(scratch, 'request.http'), directive, {});
      const before = spans();
      const result = await runLoad({ port: running.port, request, mode: 'open', conns: CONNS, ratePerS, seconds, warmS: WARM_S, cpuOf: running.pids(), stubPid: stub.pid });
      if (result.errors > 0) throw new Error(`${variant.name}: ${result.errors} requests failed`);
      // Of the whole time, warming up included; those of the last seconds come with the next load.
      results.push([name, { cpuUsPerRequest: (result.cpuS * 1e6) / result.requests, spansPerRequest: (spans() - before) / ((seconds + WARM_S) * ratePerS) }]);
    }
    return results;
  } finally {
    await running.close();
  }
}

function gatewayOf({ name, main, logsRequests, sdk }: Variant): Gateway {
  return {
    name: name.replaceAll(/\W+/g, '-'),
    version: '',
    headers: () => ({}),
    launch: ({ port, adminPort, stubPort, directory }) => {
      const config = join(directory, 'paceline.yaml');
      const profile = join(ROOT, 'config/profiles/llama-3.1-8b.h200.json');
      writeFileSync(config, `listen: { host: 127.0.0.1, port: ${port} }\nadmin: { host: 127.0.0.1, port: ${adminPort} }\nreplicas:\n  - { id: bench-0, url: 'http://127.0.0.1:${stubPort}', models: [bench], profile: ${JSON.stringify(profile)}, concurrencyMax: 8192 }\n${logsRequests ? 'logging: { requests: true }\n' : ''}`);
      return { command: [process.execPath, ...(sdk === null ? [] : ['--import', join(ROOT, 'deploy/otel/otel.mjs')]), main, 'serve', '--config', config], ...(sdk === null ? {} : { env: sdk }) };
    },
  };
}

/** Takes spans as OTLP in protobuf and counts them, roughly: by the one field that each has once and that has a length that is its own. */
async function startReceiver(): Promise<{ readonly url: string; readonly spans: () => number; close(): void }> {
  let spans = 0;
  const server = createServer((incoming, outgoing) => {
    const chunks: Buffer[] = [];
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
    incoming.on('end', () => {
      if (incoming.url === '/v1/traces') spans += countOf(Buffer.concat(chunks), SPAN_START);
      outgoing.writeHead(200, { 'content-type': 'application/x-protobuf' }).end();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, spans: () => spans, close: () => void server.close() };
}

function countOf(bytes: Buffer, piece: Buffer): number {
  let count = 0;
  for (let at = bytes.indexOf(piece); at >= 0; at = bytes.indexOf(piece, at + piece.length)) count += 1;
  return count;
}

function report(variants: readonly Variant[], measured: ReadonlyMap<string, readonly Measured[]>): void {
  const rows = variants.map(({ name }) => ({
    name,
    loads: LOADS.map((load) => {
      const own = measured.get(`${name}\n${load.name}`) ?? [];
      const off = measured.get(`off\n${load.name}`) ?? [];
      const added = quartiles(own.map(({ cpuUsPerRequest }, round) => cpuUsPerRequest - (off[round]?.cpuUsPerRequest ?? Number.NaN)));
      return { load: load.name, cpuUsPerRequest: quartiles(own.map(({ cpuUsPerRequest }) => cpuUsPerRequest)).p50, added, spansPerRequest: quartiles(own.map(({ spansPerRequest }) => spansPerRequest)).p50 };
    }),
  }));
  if (values.json) return void process.stdout.write(`${JSON.stringify({ cpu: cpus()[0]?.model, rounds: Number(values.rounds), seconds: Number(values.seconds), rows }, null, 2)}\n`);
  process.stdout.write(`| | ${LOADS.map(({ name, ratePerS }) => `${name}, ${ratePerS}/s: CPU µs per request | more than off (quartiles) | spans received per request`).join(' | ')} |\n|---|${LOADS.map(() => '---|---|---|').join('')}\n`);
  for (const { name, loads } of rows) {
    const cells = loads.map(({ cpuUsPerRequest, added, spansPerRequest }) => `${cpuUsPerRequest.toFixed(0)} | ${name === 'off' ? '' : `${added.p50.toFixed(0)} (${added.p25.toFixed(0)} to ${added.p75.toFixed(0)})`} | ${spansPerRequest.toFixed(2)}`);
    process.stdout.write(`| ${name} | ${cells.join(' | ')} |\n`);
  }
  process.stdout.write(`\n${cpus()[0]?.model ?? 'unknown CPU'}, ${cpus().length} CPUs; Node ${process.version}\n`);
}
