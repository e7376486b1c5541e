// What a gateway costs between client and model server, against other gateways: CPU, latency, memory, start. Everything runs on
// this machine over the loopback: the gateway alone on one core, a stub of a model server and the load on another.
import { spawnSync } from 'node:child_process';
import { cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import type { Gateway } from './gateways.ts';
import { findGateways } from './gateways.ts';
import type { Flatness, Round, Tail } from './measure.ts';
import { FULL, QUICK, measureFlatness, measureRound, FLAT } from './measure.ts';
import type { Stub } from './rig.ts';
import { GATEWAY_CORE, LOAD_CORE, ROOT, buildLoad, createScratch, quartiles, startStub } from './rig.ts';

const HELP = `npm run -s bench:overhead -- [options]

What each gateway costs per request, event and idle stream, and what it adds to latencies. bench/overhead/peers.sh installs
the peers; those that are not there are left out, and said.

  --only NAMES    comma-separated: paceline,nginx,haproxy,portkey,litellm,sglang-router,vllm-router,smg (direct is always measured)
  --rounds N      interleaved rounds (default 4); figures are medians over them, with quartiles
  --quick         one short round with fewer idle streams: to see that it works, not for figures
  --flatness      instead: CPU per request with 10 to 5,000 streams in flight, of the gateways of --only (default paceline)
  --json          one JSON object instead of tables
  --help          this text
`;

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    rounds: { type: 'string' },
    quick: { type: 'boolean', default: false },
    flatness: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

interface Spread {
  readonly p25: number;
  readonly p75: number;
}

interface Row {
  readonly name: string;
  readonly version: string;
  readonly rounds: number;
  readonly cpuUsPerRequest: number;
  readonly requestsPerSecond: number;
  readonly addedMs: Tail;
  readonly cpuUsPerEvent: number;
  readonly cpuUsPerEventPaced: number;
  readonly eventsPerSecond: number;
  readonly addedTransitMs: Tail;
  readonly ttftRatePerS: number;
  readonly addedTtftMs: Tail;
  readonly kbPerIdleStream: number | null;
  readonly kbPerIdleStreamAt1000: number | null;
  readonly startMs: number | null;
  readonly loadCoreShare: number;
  readonly spread: Readonly<Record<'cpuUsPerRequest' | 'requestsPerSecond' | 'cpuUsPerEvent' | 'cpuUsPerEventPaced' | 'addedMsP50' | 'addedTtftMsP50', Spread>>;
  readonly troubles: readonly string[];
}

/** Targets of the gateway relative to peers, and absolute ones. */
interface Check {
  readonly what: string;
  readonly measured: number;
  readonly limit: number;
}

const DIRECT = { name: 'direct', version: 'no gateway' };

if (values.help) process.stdout.write(HELP);
else await main();

async function main(): Promise<void> {
  const rounds = values.quick && values.rounds === undefined ? 1 : wholeOf('--rounds', values.rounds ?? '4');
  const { present, absent } = findGateways();
  const names = values.only?.split(',') ?? (values.flatness ? ['paceline'] : present.map(({ name }) => name));
  for (const name of names) {
    if (name === DIRECT.name || present.some((gateway) => gateway.name === name)) continue;
    const why = absent.find((peer) => peer.name === name)?.why;
    throw new Error(`--only: ${name}: ${why ?? `no such gateway; there are ${present.map((gateway) => gateway.name).join(', ')}`}`);
  }
  const gateways = present.filter(({ name }) => names.includes(name));
  if (gateways.some(({ name }) => name === 'paceline')) build();
  buildLoad();
  const scratch = createScratch();
  const stub = await startStub();
  try {
    if (values.flatness) await reportFlatness(gateways, stub, scratch.path, rounds);
    else {
      const measured = await measureAll(gateways, stub, scratch.path, rounds);
      report(measured.rows, [...absent.filter(() => values.only === undefined), ...measured.failed]);
    }
  } finally {
    await stub.close();
    scratch.remove();
  }
}

/** Round by round, each round all gateways in another order: what the machine does meanwhile meets all of them. */
async function measureAll(gateways: readonly Gateway[], stub: Stub, scratch: string, rounds: number): Promise<{ readonly rows: readonly Row[]; readonly failed: readonly { readonly name: string; readonly why: string }[] }> {
  const measured = new Map<string, Round[]>();
  const failed = new Map<string, string>();
  const all: readonly (Gateway | null)[] = [null, ...gateways];
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < all.length; turn++) {
      const gateway = all[(turn + round) % all.length] ?? null;
      const name = gateway?.name ?? DIRECT.name;
      progress(`round ${round + 1} of ${rounds}: ${name}`);
      try {
        measured.set(name, [...(measured.get(name) ?? []), await measureRound(gateway, stub, scratch, values.quick ? QUICK : FULL)]);
      } catch (error) {
        failed.set(name, error instanceof Error ? error.message : String(error));
        progress(`  ${name}: ${failed.get(name)}`);
      }
    }
  }
  const direct = measured.get(DIRECT.name) ?? [];
  const rows = [DIRECT, ...gateways].flatMap(({ name, version }) => {
    const own = measured.get(name) ?? [];
    return own.length === 0 ? [] : [rowOf(name, version, own, direct)];
  });
  return { rows, failed: [...failed].map(([name, why]) => ({ name, why })) };
}

function rowOf(name: string, version: string, rounds: readonly Round[], direct: readonly Round[]): Row {
  const isDirect = name === DIRECT.name;
  const middle = (of: (round: Round) => number): number => quartiles(rounds.map(of)).p50;
  const optional = (of: (round: Round) => number | null): number | null => {
    const known = rounds.map(of).filter((value) => value !== null);
    return known.length === 0 ? null : quartiles(known).p50;
  };
  const spread = (of: (round: Round) => number): Spread => (({ p25, p75 }) => ({ p25, p75 }))(quartiles(rounds.map(of)));
  /** Less the median without a gateway. */
  const added = (of: (round: Round) => number) => {
    const base = isDirect ? 0 : quartiles(direct.map(of)).p50;
    return (round: Round): number => of(round) - base;
  };
  const addedTail = (of: (round: Round) => Tail): Tail => ({ p50: middle(added((round) => of(round).p50)), p99: middle(added((round) => of(round).p99)) });
  return {
    name,
    version,
    rounds: rounds.length,
    cpuUsPerRequest: middle((round) => round.cpuUsPerRequest),
    requestsPerSecond: middle((round) => round.requestsPerSecond),
    addedMs: addedTail((round) => round.latencyMs),
    cpuUsPerEvent: middle((round) => round.cpuUsPerEventFlood),
    cpuUsPerEventPaced: middle((round) => round.cpuUsPerEventPaced),
    eventsPerSecond: middle((round) => round.eventsPerSecondFlood),
    addedTransitMs: addedTail((round) => round.transitMs),
    ttftRatePerS: middle((round) => round.ttftRatePerS),
    addedTtftMs: addedTail((round) => round.ttftMs),
    kbPerIdleStream: optional((round) => round.kbPerIdleStream.at5000),
    kbPerIdleStreamAt1000: optional((round) => round.kbPerIdleStream.at1000),
    startMs: optional((round) => round.startMs),
    loadCoreShare: middle((round) => round.loadCoreShare),
    spread: {
      cpuUsPerRequest: spread((round) => round.cpuUsPerRequest),
      requestsPerSecond: spread((round) => round.requestsPerSecond),
      cpuUsPerEvent: spread((round) => round.cpuUsPerEventFlood),
      cpuUsPerEventPaced: spread((round) => round.cpuUsPerEventPaced),
      addedMsP50: spread(added((round) => round.latencyMs.p50)),
      addedTtftMsP50: spread(added((round) => round.ttftMs.p50)),
    },
    troubles: [...new Set(rounds.flatMap(({ troubles }) => troubles))],
  };
}

function report(rows: readonly Row[], absent: readonly { readonly name: string; readonly why: string }[]): void {
  const checks = checksOf(rows);
  if (values.json) {
    process.stdout.write(`${JSON.stringify({ machine: machine(), quick: values.quick, gateways: rows, absent, checks: checks.map((check) => ({ ...check, met: check.measured <= check.limit })) }, null, 2)}\n`);
    return;
  }
  const head = ['gateway', 'CPU µs/request', 'requests/s at 64', 'added ms p50/p99', 'CPU µs/event flood', 'paced', 'event transit +ms', 'TTFT +ms p50/p99 (at/s)', 'KB/idle stream 1k, 5k', 'start ms'];
  const lines = rows.map((row) => [
    `${row.name} ${row.version}`,
    withSpread(row.cpuUsPerRequest, row.spread.cpuUsPerRequest, 0),
    `${withSpread(row.requestsPerSecond, row.spread.requestsPerSecond, 0)}${row.loadCoreShare > 0.9 ? ' *' : ''}`,
    tail(row.addedMs),
    withSpread(row.cpuUsPerEvent, row.spread.cpuUsPerEvent, 2),
    row.cpuUsPerEventPaced.toFixed(1),
    tail(row.addedTransitMs),
    `${tail(row.addedTtftMs)} (${row.ttftRatePerS.toFixed(0)})`,
    `${row.kbPerIdleStreamAt1000?.toFixed(1) ?? '-'}, ${row.kbPerIdleStream?.toFixed(1) ?? '-'}`,
    row.startMs?.toFixed(0) ?? '-',
  ]);
  process.stdout.write(`| ${head.join(' | ')} |\n|${head.map(() => '---|').join('')}\n${lines.map((cells) => `| ${cells.join(' | ')} |\n`).join('')}`);
  for (const { what, measured, limit } of checks) process.stdout.write(`${measured <= limit ? 'met   ' : 'MISSED'} ${what}: ${measured.toFixed(2)} [<= ${limit}]\n`);
  for (const row of rows) for (const trouble of row.troubles) process.stdout.write(`${row.name}: ${trouble}\n`);
  for (const { name, why } of absent) process.stdout.write(`not measured: ${name}: ${why}\n`);
  process.stdout.write(`* stub and load took their whole core: the gateway could do more. The row of direct is whole latencies, not added ones.\n${machine()}\n`);
}

function checksOf(rows: readonly Row[]): Check[] {
  const of = (name: string): Row | undefined => rows.find((row) => row.name === name);
  const own = of('paceline');
  if (own === undefined) return [];
  const [nginx, portkey] = [of('nginx'), of('portkey')];
  return [
    ...(nginx === undefined ? [] : [{ what: 'CPU per request, times that of nginx', measured: own.cpuUsPerRequest / nginx.cpuUsPerRequest, limit: 4.5 }, { what: 'CPU per event in flood, times that of nginx', measured: own.cpuUsPerEvent / nginx.cpuUsPerEvent, limit: 3 }]),
    ...(portkey === undefined ? [] : [{ what: 'CPU per request, share of that of Portkey', measured: own.cpuUsPerRequest / portkey.cpuUsPerRequest, limit: 0.125 }, { what: 'CPU per event in flood, share of that of Portkey', measured: own.cpuUsPerEvent / portkey.cpuUsPerEvent, limit: 0.125 }]),
    ...(own.kbPerIdleStream === null ? [] : [{ what: 'KB per idle stream', measured: own.kbPerIdleStream, limit: 16 }]),
    { what: 'added TTFT p50 at a third of saturation, ms', measured: own.addedTtftMs.p50, limit: 0.4 },
    { what: 'added TTFT p99 at a third of saturation, ms', measured: own.addedTtftMs.p99, limit: 2 },
  ];
}

async function reportFlatness(gateways: readonly Gateway[], stub: Stub, scratch: string, rounds: number): Promise<void> {
  const measured = new Map<string, Flatness[]>();
  for (let round = 0; round < rounds; round++) {
    for (const streams of values.quick ? [10, 1_000] : FLAT.streams) {
      for (const gateway of gateways) {
        progress(`round ${round + 1} of ${rounds}: ${gateway.name} with ${streams} streams`);
        const key = `${gateway.name} ${streams}`;
        measured.set(key, [...(measured.get(key) ?? []), await measureFlatness(gateway, stub, scratch, values.quick ? QUICK : FULL, streams)]);
      }
    }
  }
  const flatness = gateways.map(({ name, version }) => {
    const points = [...measured].filter(([key]) => key.startsWith(`${name} `)).map(([, taken]) => ({
      streams: taken[0]?.streams ?? 0,
      cpuUsPerRequest: quartiles(taken.map(({ cpuUsPerRequest }) => cpuUsPerRequest)),
      latencyMsP50: quartiles(taken.map(({ latencyMs }) => latencyMs.p50)).p50,
    }));
    const fewest = points[0]?.cpuUsPerRequest.p50 ?? Number.NaN;
    return { name, version, points, worstRatio: Math.max(...points.map(({ cpuUsPerRequest }) => Math.max(cpuUsPerRequest.p50 / fewest, fewest / cpuUsPerRequest.p50))) };
  });
  if (values.json) {
    process.stdout.write(`${JSON.stringify({ machine: machine(), quick: values.quick, ...FLAT, flatness }, null, 2)}\n`);
    return;
  }
  for (const { name, points, worstRatio } of flatness) {
    for (const { streams, cpuUsPerRequest, latencyMsP50 } of points) process.stdout.write(`${name} with ${String(streams).padStart(5)} streams: ${withSpread(cpuUsPerRequest.p50, cpuUsPerRequest, 0)} µs a request, p50 ${latencyMsP50.toFixed(2)} ms\n`);
    process.stdout.write(`${worstRatio <= 1.1 ? 'met   ' : 'MISSED'} ${name}: within ${((worstRatio - 1) * 100).toFixed(0)} % of that with the fewest [<= 10 %]\n`);
  }
  process.stdout.write(`at ${FLAT.requestsPerS} requests/s and ${FLAT.eventsPerS} events/s over all streams, whose cost is in it\n${machine()}\n`);
}

/** What is measured is what users run: the built package. */
function build(): void {
  const built = spawnSync('npm', ['run', '-s', 'build'], { cwd: ROOT, encoding: 'utf8' });
  if (built.status !== 0) throw new Error(`npm run build: ${built.stdout}${built.stderr}`);
}

function machine(): string {
  return `${cpus().length} x ${cpus()[0]?.model.trim()}, gateway on core ${GATEWAY_CORE}, stub and load on core ${LOAD_CORE}, Node ${process.version}, load average ${loadavg()[0]?.toFixed(1)} at the end`;
}

function progress(line: string): void {
  process.stderr.write(`${line}\n`);
}

function tail({ p50, p99 }: Tail): string {
  return `${p50.toFixed(2)}/${p99.toFixed(2)}`;
}

function withSpread(middle: number, { p25, p75 }: Spread, digits: number): string {
  return `${middle.toFixed(digits)} [${p25.toFixed(digits)}-${p75.toFixed(digits)}]`;
}

function wholeOf(option: string, text: string): number {
  const number = Number(text);
  if (!Number.isInteger(number) || number < 1) throw new Error(`${option}: got ${text}, wanted a whole number from 1`);
  return number;
}
