// Plays one schedule against real processes: the load, the faults beside it, and what is to be seen afterwards.
import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { monotonicMs } from '../../src/engine/real-time.ts';
import type { Seen } from './checking-client.ts';
import { sendChecked } from './checking-client.ts';
import type { FaultyServer, Mood } from './faulty-server.ts';
import { createFaultyServer } from './faulty-server.ts';
import { emulatedExecutions, executionsOf } from './executions.ts';
import type { Happened, Observation } from './invariants.ts';
import type { Node, Rig } from './rig.ts';
import { getText, MODEL, signal, startRig, until, untilAllUp } from './rig.ts';
import type { Fault, PlannedRequest, Schedule, TargetKind } from './schedule.ts';
import { SHAPE, tailRequests } from './schedule.ts';

const STUB_ID = 'stub';
/** Short, so that a schedule takes seconds; each is well above what a busy machine adds. */
const TIMEOUTS = { connectMs: 500, firstByteMs: 4_000, stallMs: 1_000, drainMs: 2_000 };
const QUEUE_MS = 4_000;
const HEALTH = { everyMs: 100, timeoutMs: 400, failuresMax: 2, slowStartMs: 500 };
const TTL_MS = 500;
const API_KEY = 'sk-of-the-checking-client';
/** Limits that are never reached, so that Redis is asked about every request. */
const TENANT = { name: 'checker', apiKeySha256: [createHash('sha256').update(API_KEY).digest('hex')], limits: { requestsPerMinute: 1_000_000, tokensPerMinute: 1_000_000_000, concurrencyMax: 100_000 } };
/** In the queue, until the answer begins, its longest text on a slow server, silence in it; and what a starved machine adds. */
const HUNG_AFTER_MS = QUEUE_MS + TIMEOUTS.firstByteMs + 3_000 + TIMEOUTS.stallMs + 4_000;
/** Probes that fail until a replica is down, and one that succeeds. */
const FELT_MS = (HEALTH.failuresMax + 1) * (HEALTH.everyMs + HEALTH.timeoutMs) + 500;
/** The agent promises milliseconds, the lease its time to live; the rest is for a starved machine. */
const CLOCKS_MS = TTL_MS + 1_500;
const SLOTS_MS = 3_000;

export async function play(schedule: Schedule): Promise<Observation> {
  const stub = await createFaultyServer();
  const rig = await startRig({
    profile: 'config/profiles/llama-3.1-8b.h200.json',
    nodes: Array.from({ length: SHAPE.replicas }, () => 1),
    gateways: SHAPE.gateways,
    servers: { [STUB_ID]: stub.url },
    config: { timeouts: TIMEOUTS, health: HEALTH, admission: { queueTimeoutMs: QUEUE_MS }, planner: { routing: schedule.routing }, tenants: [TENANT] },
    replica: { concurrencyMax: schedule.concurrencyMax },
    ttlMs: TTL_MS,
  });
  try {
    return await observe(schedule, rig, stub);
  } finally {
    await rig.close();
    await stub.close();
  }
}

async function observe(schedule: Schedule, rig: Rig, stub: FaultyServer): Promise<Observation> {
  const seen: Seen[] = [];
  const faults: Happened[] = [];
  const clocks: Observation['clocks'][number][] = [];
  const send = (request: PlannedRequest): void => {
    const url = rig.gateways[request.gateway]?.url ?? '';
    sendChecked(request, { url, model: MODEL, gateway: request.gateway, hungAfterMs: HUNG_AFTER_MS, serverKind: (replica) => (replica === STUB_ID ? 'stub' : 'emulated'), headers: { authorization: `Bearer ${API_KEY}` } }, (one) => void seen.push(one));
  };
  const allEnded = (requests: readonly PlannedRequest[]): Promise<boolean> => {
    return until(() => {
      const ended = new Set(seen.map(({ request }) => request.id));
      return requests.every(({ id }) => ended.has(id));
    }, HUNG_AFTER_MS + 2_000);
  };

  const startedAtMs = monotonicMs();
  /** By target: on a busy machine what was killed may not be back when it is to be broken again. */
  const mended = new Map<string, Promise<void>>();
  const injectOne = async (fault: Fault, before: Promise<void> | undefined): Promise<void> => {
    await Promise.all([delay(fault.atMs), before]);
    const fromMs = monotonicMs();
    await inject(fault, rig, stub, (after, back) => void clocks.push({ after, ...back }));
    faults.push({ target: fault.target, index: fault.index, kind: fault.kind, fromMs, toMs: monotonicMs() });
  };
  for (const fault of schedule.faults) {
    const target = `${fault.target}-${fault.index}`;
    mended.set(target, injectOne(fault, mended.get(target)));
  }
  for (const request of schedule.requests) {
    await delay(Math.max(0, startedAtMs + request.atMs - monotonicMs()));
    send(request);
  }
  await Promise.all(mended.values());
  await allEnded(schedule.requests);

  const notRecovered: string[] = [];
  for (const gateway of rig.gateways) if (!(await untilAllUp(gateway))) notRecovered.push(gateway.name);
  const tail = tailRequests(schedule);
  tail.forEach(send);
  await allEnded(tail);
  const held = await whatIsHeld(rig, stub);

  for (const gateway of rig.gateways) gateway.kill();
  clocks.push({ after: 'SIGKILL of all gateways', ...(await untilDefault(rig.nodes)) });
  return {
    requests: [...schedule.requests, ...tail],
    seen,
    tail: new Set(tail.map(({ id }) => id)),
    executions: [...rig.nodes.flatMap(({ requestLog }, index) => emulatedExecutions(requestLog, `node-${index}`)), ...executionsOf(stub.notes.map((note) => ({ ...note, replica: STUB_ID })))],
    faults,
    replicaOf: new Map<string, { target: TargetKind; index: number }>([[STUB_ID, { target: 'stub', index: 0 }], ...rig.nodes.map((_, index) => [`node-${index}-0`, { target: 'replica' as const, index }] as const)]),
    held,
    clocks,
    notRecovered,
    troubles: [...rig.troubles],
    feltMs: FELT_MS,
  };
}

/** Resolves when it is over and what was broken is there again. */
async function inject({ target, index, kind, lengthMs }: Fault, rig: Rig, stub: FaultyServer, onClocks: (after: string, back: Back) => void): Promise<void> {
  switch (target) {
    case 'replica': {
      const servers = (rig.nodes[index] as Node).servers;
      if (kind === 'kill') return killed(servers, lengthMs);
      if (kind === 'hang') return stopped(servers.pid(), lengthMs);
      return slowed(servers.pid(), lengthMs);
    }
    case 'stub':
      if (kind === 'kill') {
        await stub.die();
        await delay(lengthMs);
        return stub.revive();
      }
      stub.mood = kind as Mood;
      await delay(lengthMs);
      stub.mood = 'well';
      return;
    case 'agent': {
      const node = rig.nodes[index] as Node;
      if (node.agent === null) return;
      const workerPid = node.workerPid() ?? -1;
      if (kind === 'freeze') return stopped(workerPid, lengthMs);
      if (kind === 'kill') node.agent.kill();
      else signal(workerPid, 'SIGKILL');
      const told = untilDefault([node]).then((back) => onClocks(`agent-${index} ${kind}`, back));
      await delay(lengthMs);
      if (kind === 'kill') await node.agent.start();
      await told;
      return;
    }
    case 'redis':
      if (kind === 'freeze') return stopped(rig.redis.server().pid, lengthMs);
      await rig.redis.stop();
      await delay(lengthMs);
      await rig.redis.start();
      return;
    case 'gateway': {
      const gateway = rig.gateways[index];
      if (gateway !== undefined) await killed(gateway, lengthMs);
    }
  }
}

async function killed(part: { kill(): void; start(): Promise<void> }, lengthMs: number): Promise<void> {
  part.kill();
  await delay(lengthMs);
  await part.start();
}

async function stopped(pid: number, lengthMs: number): Promise<void> {
  signal(pid, 'SIGSTOP');
  await delay(lengthMs);
  signal(pid, 'SIGCONT');
}

/** It runs a third of the time. */
async function slowed(pid: number, lengthMs: number): Promise<void> {
  const untilMs = monotonicMs() + lengthMs;
  while (monotonicMs() < untilMs) {
    await stopped(pid, 40);
    await delay(20);
  }
}

type Back = Omit<Observation['clocks'][number], 'after'>;

/** Until every device has been at its default clock. */
async function untilDefault(nodes: readonly Node[]): Promise<Back> {
  const fromMs = monotonicMs();
  const left = new Set(nodes.filter(({ agent }) => agent !== null).flatMap((node) => node.locksMhz().map((_, device) => ({ node, device }))));
  const lowered = nodes.flatMap((node) => node.locksMhz()).filter((mhz) => mhz > 0).length;
  const done = await until(() => {
    for (const one of left) if (one.node.locksMhz()[one.device] === 0) left.delete(one);
    return left.size === 0;
  }, CLOCKS_MS);
  return { lowered, tookMs: done ? monotonicMs() - fromMs : null };
}

/** Everything that counts requests, once it has had time to come to nothing. */
async function whatIsHeld(rig: Rig, stub: FaultyServer): Promise<Observation['held']> {
  let held: Observation['held'] = [];
  await until(async () => {
    held = [...(await Promise.all([...rig.gateways.map(heldByGateway), ...rig.nodes.flatMap((node) => node.replicas.map(({ url }) => heldByServer(node.servers.name, url)))])).flat(), { where: STUB_ID, what: 'open requests', count: stub.open() }];
    return held.every(({ count }) => count === 0);
  }, SLOTS_MS);
  return held;
}

const GAUGE = /^(paceline_requests_in_flight|paceline_queued_requests|paceline_replica_running_streams|paceline_replica_waiting_prompts|paceline_tenant_requests_in_flight)(\{[^}]*\})? (\S+)$/gm;

async function heldByGateway({ name, adminUrl }: { readonly name: string; readonly adminUrl: string }): Promise<Observation['held']> {
  const page = (await getText(`${adminUrl}/metrics`)) ?? '';
  const gauges = [...page.matchAll(GAUGE)].map(([, gauge = '', labels = '', value = '']) => ({ where: name, what: gauge + labels, count: Number(value) }));
  // A page without them would look like one where all is well.
  return gauges.length >= 4 ? gauges : [{ where: name, what: 'metrics missing', count: 1 }];
}

async function heldByServer(name: string, url: string): Promise<Observation['held']> {
  const text = await getText(`${url}/emulator/state`);
  if (text === null) return [{ where: name, what: 'no answer', count: 1 }];
  const { running, waiting } = JSON.parse(text) as { running: number; waiting: number };
  return [{ where: name, what: 'running', count: running }, { where: name, what: 'waiting', count: waiting }];
}
