// One round of measurements of one gateway, in the order in which they disturb each other least.
import { join } from 'node:path';
import type { Gateway, RunningGateway } from './gateways.ts';
import { startGateway } from './gateways.ts';
import type { HeldStreams, LoadOptions, LoadResult, Stub } from './rig.ts';
import { holdStreams, residentKib, runLoad, sleep, writeRequest } from './rig.ts';

export interface Tail {
  readonly p50: number;
  readonly p99: number;
}

/** Of one round. Latencies are whole, not yet less those without a gateway; `null` is what could not be measured. */
export interface Round {
  readonly startMs: number | null;
  readonly requestsPerSecond: number;
  readonly cpuUsPerRequest: number;
  /** At the fixed rate, from the instant the request was due. */
  readonly latencyMs: Tail;
  readonly cpuUsPerEventFlood: number;
  readonly eventsPerSecondFlood: number;
  readonly cpuUsPerEventPaced: number;
  readonly transitMs: Tail;
  /** Streaming requests per second that the next two were measured at: a third of what the gateway can. */
  readonly ttftRatePerS: number;
  readonly ttftMs: Tail;
  readonly kbPerIdleStream: { readonly at1000: number | null; readonly at5000: number | null };
  /** Share of the load's core that stub and load took at saturation; near 1 they, and not the gateway, are what was measured. */
  readonly loadCoreShare: number;
  readonly troubles: readonly string[];
}

export interface Effort {
  readonly seconds: number;
  readonly warmS: number;
  readonly ratePerS: number;
  readonly idleStreams: readonly [number, number];
}

export const FULL: Effort = { seconds: 5, warmS: 2, ratePerS: 500, idleStreams: [1_000, 5_000] };
export const QUICK: Effort = { seconds: 1, warmS: 0.5, ratePerS: 500, idleStreams: [200, 1_000] };

const CLOSED_CONNS = 64;
const FLOOD_STREAMS = 16;
const PACED = { streams: 100, gapUs: 50_000 };
const OPEN_CONNS = 2_048;
/** A short stream, for the time to its first event at many a second; and enough of them at a time to find out how many. */
const SHORT = 'e=4 g=2000';
const SHORT_CONNS = 256;

/** `null` is no gateway: the load asks the stub. */
export async function measureRound(gateway: Gateway | null, stub: Stub, scratch: string, effort: Effort): Promise<Round> {
  const headers = gateway === null ? {} : gateway.headers(stub.port);
  const requestOf = (name: string, directive: string): string => writeRequest(join(scratch, `${gateway?.name ?? 'direct'}-${name}.http`), directive, headers);
  const running: RunningGateway | null = gateway === null ? null : await startGateway(gateway, stub.port, scratch);
  const troubles: string[] = [];
  const port = running?.port ?? stub.port;

  const load = async (what: string, directive: string, options: Pick<LoadOptions, 'mode' | 'conns'> & Partial<LoadOptions>): Promise<LoadResult> => {
    const cpuOf = running?.pids() ?? [];
    const result = await runLoad({ port, request: requestOf(what, directive), seconds: effort.seconds, warmS: effort.warmS, cpuOf, stubPid: stub.pid, ...options });
    if (result.errors > 0) troubles.push(`${what}: ${result.errors} failed`);
    if (result.unanswered > 0 && options.mode === 'open' && result.unanswered > 0.05 * result.latencyUs.count) troubles.push(`${what}: ${result.unanswered} of ${result.latencyUs.count} unanswered at the end`);
    return result;
  };

  try {
    const closed = await load('closed', 'd=0', { mode: 'closed', conns: CLOSED_CONNS });
    const open = await load('open', 'd=0', { mode: 'open', conns: OPEN_CONNS, ratePerS: effort.ratePerS });
    const flood = await load('flood', 'e=20000 g=0', { mode: 'closed', conns: FLOOD_STREAMS });
    const paced = await load('paced', `e=1000000 g=${PACED.gapUs}`, { mode: 'closed', conns: PACED.streams, rampS: Math.min(effort.warmS, 1) });
    const saturated = await load('streams', SHORT, { mode: 'closed', conns: SHORT_CONNS });
    // Without a gateway there is no third to take; what the stub itself adds is told at the rate of the others.
    const ttftRatePerS = gateway === null ? effort.ratePerS : Math.max(1, Math.round(saturated.requests / saturated.seconds / 3));
    const ttft = await load('ttft', SHORT, { mode: 'open', conns: OPEN_CONNS, ratePerS: ttftRatePerS });
    await running?.close();
    const kbPerIdleStream = gateway === null ? { at1000: 0, at5000: 0 } : await idleMemory(() => startGateway(gateway, stub.port, scratch), requestOf('idle', 'e=1 g=1000 h=1'), requestOf('closed', 'd=0'), effort, troubles);
    return {
      startMs: running?.startMs ?? null,
      requestsPerSecond: closed.requests / closed.seconds,
      cpuUsPerRequest: per(closed.cpuS, closed.requests),
      latencyMs: tailOf(open.latencyUs),
      cpuUsPerEventFlood: per(flood.cpuS, flood.events),
      eventsPerSecondFlood: flood.events / flood.seconds,
      cpuUsPerEventPaced: per(paced.cpuS, paced.events),
      transitMs: tailOf(paced.transitUs),
      ttftRatePerS,
      ttftMs: tailOf(ttft.firstEventUs),
      kbPerIdleStream,
      loadCoreShare: (closed.loadCpuS + closed.stubCpuS) / closed.seconds,
      troubles,
    };
  } finally {
    await running?.close();
  }
}

/** What each silent stream adds to resident memory; of a gateway started anew, for one that was busy has room left over. */
async function idleMemory(start: () => Promise<RunningGateway>, idle: string, ask: string, effort: Effort, troubles: string[]): Promise<Round['kbPerIdleStream']> {
  const [few, many] = effort.idleStreams;
  const running = await start();
  const held: HeldStreams[] = [];
  const taken: number[] = [];
  try {
    // So that what is compiled and allocated once is there already.
    await runLoad({ port: running.port, request: ask, mode: 'closed', conns: 16, seconds: effort.warmS, warmS: 0 });
    await sleep(500);
    const before = residentKib(running.pids());
    for (const conns of [few, many - few]) {
      held.push(await holdStreams({ port: running.port, request: idle, conns, rampS: conns / 500 }, 60_000));
      await sleep(1_500);
      taken.push((residentKib(running.pids()) - before) / (taken.length === 0 ? few : many));
    }
  } catch (error) {
    troubles.push(`idle: ${error instanceof Error ? error.message : String(error)}`);
  }
  for (const { errors } of await Promise.all(held.map((streams) => streams.close()))) if (errors > 0) troubles.push(`idle: ${errors} streams ended`);
  await running.close();
  return { at1000: taken[0] ?? null, at5000: taken[1] ?? null };
}

export interface Flatness {
  readonly streams: number;
  readonly cpuUsPerRequest: number;
  readonly latencyMs: Tail;
}

/** The same requests and the same events per second, over ever more streams: what a request costs should not know of them. */
export const FLAT = { requestsPerS: 300, eventsPerS: 1_000, streams: [10, 100, 1_000, 5_000] };

export async function measureFlatness(gateway: Gateway, stub: Stub, scratch: string, effort: Effort, streams: number): Promise<Flatness> {
  const headers = gateway.headers(stub.port);
  const running = await startGateway(gateway, stub.port, scratch);
  try {
    const ask = writeRequest(join(scratch, `${gateway.name}-flat-ask.http`), 'd=0', headers);
    const gapUs = Math.round((streams / FLAT.eventsPerS) * 1e6);
    const streaming = writeRequest(join(scratch, `${gateway.name}-flat-stream.http`), `e=1000000 g=${gapUs}`, headers);
    // Warmed up alike for every number of streams, or the first would pay for compiling.
    await runLoad({ port: running.port, request: ask, mode: 'closed', conns: 16, seconds: effort.warmS, warmS: 0 });
    // Spread over one gap, so that events come one by one, and over a while at least, so that opening them is no flood.
    const held = await holdStreams({ port: running.port, request: streaming, conns: streams, rampS: Math.max(1, gapUs / 1e6) }, 90_000);
    const open = await runLoad({ port: running.port, request: ask, mode: 'open', conns: 1_024, ratePerS: FLAT.requestsPerS, seconds: effort.seconds, warmS: effort.warmS, cpuOf: running.pids(), stubPid: stub.pid });
    await held.close();
    return { streams, cpuUsPerRequest: per(open.cpuS, open.requests), latencyMs: tailOf(open.latencyUs) };
  } finally {
    await running.close();
  }
}

function per(cpuS: number, count: number): number {
  return count === 0 ? Number.NaN : (cpuS * 1e6) / count;
}

function tailOf({ p50, p99 }: { readonly p50: number; readonly p99: number }): Tail {
  return { p50: p50 / 1_000, p99: p99 / 1_000 };
}
