// How soon a client that leaves is let go of: at every endpoint, in every phase, streaming or not. The gateway is a process of
// its own with one place on its server, so that a freed place shows by who gets it.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { startChild } from '../../src/demo/children.ts';
import { percentiles } from '../../src/statistics/percentiles.ts';
import { ENDPOINT_PATHS, leavingBody, PHASES } from '../../test/fixtures/leaving.ts';
import type { LeavingPhase } from '../../test/fixtures/leaving.ts';
import { openRawClient, rawPost } from '../../test/fixtures/raw-client.ts';
import type { RawClient } from '../../test/fixtures/raw-client.ts';
import { createRawUpstream } from '../../test/fixtures/raw-upstream.ts';
import type { RawUpstream } from '../../test/fixtures/raw-upstream.ts';
import { getText, ROOT, until, untilAllUp } from './rig.ts';

export interface CancellationResult {
  readonly cases: number;
  readonly targetMs: number;
  readonly phases: readonly PhaseResult[];
  /** Of all that was measured. */
  readonly worstMs: number;
  readonly aboveTarget: number;
}

interface PhaseResult {
  readonly phase: string;
  /** From leaving until the connection to the server is closed; `null` for who never had one. */
  readonly closedMs: { readonly median: number; readonly max: number } | null;
  /** From leaving until its place is another's. */
  readonly freedMs: { readonly median: number; readonly max: number };
}

const TARGET_MS = 50;
const NOT_WITHIN_MS = 5_000;
const QUEUED_PHASES: readonly LeavingPhase[] = [true, false].map((stream) => ({ phase: `queued, ${stream ? 'a stream' : 'no stream'}`, stream, answer: () => {}, bytes: 0 }));

export async function measureCancellation({ rounds }: { readonly rounds: number }): Promise<CancellationResult> {
  const directory = mkdtempSync(join(tmpdir(), 'paceline-cancel-'));
  const upstream = await createRawUpstream();
  const configFile = join(directory, 'gateway.yaml');
  const profile = join(ROOT, 'config/profiles/llama-3.1-8b.h200.json');
  writeFileSync(configFile, stringify({ listen: { port: 0 }, admin: { port: 0 }, replicas: [{ id: 'only', url: upstream.url, models: ['m'], profile, concurrencyMax: 1 }], limits: { queuedMax: 1 }, health: { everyMs: 200 }, timeouts: { drainMs: 0 }, logging: { level: 'error' } }));
  const gateway = startChild('gateway', process.execPath, [join(ROOT, 'src/main.ts'), 'serve', '--config', configFile], (message) => process.stderr.write(`${message}\n`));
  try {
    const at = (await gateway.ready) as { readonly url: string; readonly adminUrl: string };
    await untilAllUp(at);
    const measured = new Map<string, { closedMs: number[]; freedMs: number[] }>();
    let cases = 0;
    for (let round = 0; round < rounds; round++) {
      for (const path of Object.values(ENDPOINT_PATHS)) {
        for (const phase of [...QUEUED_PHASES, ...PHASES]) {
          const of = measured.get(phase.phase) ?? { closedMs: [], freedMs: [] };
          measured.set(phase.phase, of);
          const { closedMs, freedMs } = QUEUED_PHASES.includes(phase) ? await leaveQueue(at, upstream, path, phase) : await leaveServer(at, upstream, path, phase);
          if (closedMs !== null) of.closedMs.push(closedMs);
          of.freedMs.push(freedMs);
          if (round === 0) cases += 1;
        }
      }
    }
    const all = [...measured.values()].flatMap((of) => [...of.closedMs, ...of.freedMs]);
    return {
      cases,
      targetMs: TARGET_MS,
      phases: [...measured].map(([phase, { closedMs, freedMs }]) => ({ phase, closedMs: closedMs.length === 0 ? null : spread(closedMs), freedMs: spread(freedMs) })),
      worstMs: Math.max(...all),
      aboveTarget: all.filter((ms) => ms > TARGET_MS).length,
    };
  } finally {
    await gateway.stop();
    await upstream.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

interface Place {
  readonly url: string;
  readonly adminUrl: string;
}

interface Left {
  readonly closedMs: number | null;
  readonly freedMs: number;
}

/** One has the only place and leaves; another one waits for it. */
async function leaveServer(at: Place, upstream: RawUpstream, path: string, { stream, answer, bytes }: LeavingPhase): Promise<Left> {
  upstream.requests.length = 0;
  upstream.answer = answer;
  const leaving = await asked(at.url, path, stream);
  await holds('the server has the request', () => upstream.requests.length === 1);
  await leaving.received(bytes);
  const waiting = await asked(at.url, path, stream);
  await holds('another one is queued', async () => (await inFlight(at)) === 2);
  upstream.answer = ({ socket }) => void socket.write('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}');
  const [first] = upstream.requests;
  const closed = new Promise<number>((resolve) => first?.socket.once('close', () => resolve(performance.now())));
  const leftAtMs = performance.now();
  leaving.socket.destroy();
  const closedMs = (await closed) - leftAtMs;
  await holds('the next one has its place', () => upstream.requests.length === 2);
  const freedMs = performance.now() - leftAtMs;
  await waiting.read();
  waiting.socket.destroy();
  await holds('nothing is under way', async () => (await inFlight(at)) === 0);
  return { closedMs, freedMs };
}

/** One has the only place, another the only one in the queue, and leaves it. */
async function leaveQueue(at: Place, upstream: RawUpstream, path: string, { stream }: LeavingPhase): Promise<Left> {
  upstream.requests.length = 0;
  upstream.answer = () => {};
  const serving = await asked(at.url, path, stream);
  await holds('the server has the request', () => upstream.requests.length === 1);
  const leaving = await asked(at.url, path, stream);
  await holds('another one is queued', async () => (await inFlight(at)) === 2);
  const leftAtMs = performance.now();
  leaving.socket.destroy();
  await holds('its place in the queue is free', async () => (await inFlight(at)) === 1);
  const freedMs = performance.now() - leftAtMs;
  serving.socket.destroy();
  await holds('nothing is under way', async () => (await inFlight(at)) === 0);
  return { closedMs: null, freedMs };
}

async function asked(url: string, path: string, stream: boolean): Promise<RawClient> {
  const client = await openRawClient(url);
  client.write(rawPost(path, leavingBody(stream)));
  return client;
}

async function inFlight({ adminUrl }: Place): Promise<number> {
  return (JSON.parse((await getText(`${adminUrl}/paceline/status`)) ?? '{}') as { inFlight: number }).inFlight;
}

async function holds(what: string, check: () => boolean | Promise<boolean>): Promise<void> {
  if (!(await until(check, NOT_WITHIN_MS))) throw new Error(`not within ${NOT_WITHIN_MS} ms: ${what}`);
}

function spread(values: readonly number[]): { readonly median: number; readonly max: number } {
  return { median: percentiles(values).p50 ?? Number.NaN, max: Math.max(...values) };
}
