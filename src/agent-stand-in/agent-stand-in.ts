// A stand-in for the native agent where there is no Rust toolchain: agent/PROTOCOL.md over a Unix socket, in this process,
// for EMULATED devices only. It has no journal and no sentinel: a SIGKILL leaves emulated locks behind until it is started
// again. It also has no policy, no lowering rate limit, no `/v1/stream` and no `/metrics`. It must never drive a GPU.
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, existsSync, rmSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { DeviceDescription, DeviceStateFile } from '../engine/device-file.ts';
import { openDeviceStateFile, readDeviceDescription } from '../engine/device-file.ts';
import { unreachable } from '../core/unreachable.ts';
import type { Answer } from './answers.ts';
import { json, leaseRequest, problem, readShape, targetsRequest } from './answers.ts';
import type { Accepted, LeaseId, PutOutcome } from './arbitration.ts';
import { LEASES_MAX, createArbitration } from './arbitration.ts';

export interface AgentStandIn {
  readonly socketPath: string;
  /** Ids, `sim:<index>`. */
  readonly devices: readonly string[];
  /** Ends all leases, brings all devices to default clocks and removes the socket. */
  close(): Promise<void>;
}

/** There are no emulated devices, or somebody serves the socket already. */
export class AgentStandInError extends Error {
  override name = 'AgentStandInError';
}

const BODY_BYTES_MAX = 64 * 1024;
/** As the native agent: gateways, a load generator, an operator or two. */
const CONNECTIONS_MAX = 128;
const REQUEST_READ_MS_MAX = 5_000;
const HEARTBEAT_EVERY_MS = 1_000;
/** Devices of one emulator: 64 replicas of eight. */
const DEVICES_MAX = 512;
const CALL_TIMES_MAX = 256;
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** NVML's bits as words; a bit without a name keeps its number, for unknown is not "none". */
const THROTTLE_REASONS = ['gpu_idle', 'applications_clocks_setting', 'sw_power_cap', 'hw_slowdown', 'sync_boost', 'sw_thermal_slowdown', 'hw_thermal_slowdown', 'hw_power_brake_slowdown', 'display_clock_setting'];

interface Device {
  readonly id: string;
  readonly description: DeviceDescription;
  readonly file: DeviceStateFile;
  /** What it was last told; `null`: default clocks. */
  toldMhz: number | null;
  switches: number;
  readonly callUs: number[];
}

export async function startAgentStandIn({ socketPath, deviceDir }: { readonly socketPath: string; readonly deviceDir: string }): Promise<AgentStandIn> {
  await removeDeadSocket(socketPath);
  const devices = openDevices(deviceDir);
  const indexById = new Map(devices.map(({ id }, index) => [id, index]));
  const arbitration = createArbitration(devices.map(({ description }) => description.clocksMhz));
  const lifeLines = new Map<LeaseId, ServerResponse>();
  let epoch = 0;
  let closing = false;
  let timer: NodeJS.Timeout | undefined;

  /** Lets time act on leases and demands, and tells every device what follows. After whatever may have changed a target. */
  function settle(): void {
    const nowMs = monotonicMs();
    for (const leaseId of arbitration.expire(nowMs)) sayEnded(leaseId, 'expired');
    devices.forEach((device, index) => tell(device, arbitration.target(index, nowMs)));
    clearTimeout(timer);
    const nextAtMs = arbitration.nextChangeAtMs(nowMs);
    if (nextAtMs !== Infinity) timer = setTimeout(settle, Math.max(1, Math.ceil(nextAtMs - nowMs)));
  }
  function sayEnded(leaseId: LeaseId, reason: 'expired' | 'released' | 'shutdown'): void {
    const lifeLine = lifeLines.get(leaseId);
    lifeLines.delete(leaseId);
    lifeLine?.end(`${JSON.stringify({ type: 'ended', reason })}\n`);
  }
  function end(leaseId: LeaseId, reason: 'released' | 'shutdown'): boolean {
    const ended = arbitration.end(leaseId);
    settle();
    sayEnded(leaseId, reason);
    return ended;
  }

  function describeDevices(): Answer {
    const nowMs = monotonicMs();
    return json({
      devices: devices.map(({ id, description, toldMhz, switches, callUs }, index) => ({
        device: id,
        driver: 'sim',
        name: description.name,
        uuid: description.uuid,
        clocks_mhz: description.clocksMhz,
        default_clock_mhz: description.clocksMhz.at(-1),
        power_limit_mw: description.defaultPowerLimitMw,
        controls: ['clock'],
        floor_mhz: description.clocksMhz[0],
        ceiling_mhz: description.clocksMhz.at(-1),
        holders: arbitration.holders(index, nowMs).map(({ leaseId, holder, clockMhz, holdLeftMs }) => ({ lease_id: leaseId, holder, clock_mhz: clockMhz, hold_left_ms: holdLeftMs === null ? null : Math.floor(holdLeftMs) })),
        target_mhz: toldMhz,
        switch: { count: switches, call_us_p50: [...callUs].sort((a, b) => a - b)[callUs.length >> 1] ?? null, call_us_max: callUs.length === 0 ? null : Math.max(...callUs) },
      })),
    });
  }

  function sampleDevices(query: URLSearchParams): Answer {
    const unknownKey = [...query.keys()].find((key) => key !== 'device');
    if (unknownKey !== undefined) return problem('bad-request', `query ${unknownKey}: no such key; known is device`, { field: unknownKey });
    const named = query.getAll('device');
    const missing = named.find((id) => !indexById.has(id));
    if (missing !== undefined) return unknownDevice('device', missing);
    const chosen = named.length === 0 ? devices : devices.filter(({ id }) => named.includes(id));
    return json({ at_ns: Number(process.hrtime.bigint()), samples: chosen.map(sampleOf) });
  }

  function grant(text: string, request: IncomingMessage, response: ServerResponse): Answer | 'streaming' {
    const read = readShape(leaseRequest, text);
    if (read.kind === 'refused') return read.answer;
    if (closing) return problem('shutting-down', 'nothing is granted any more');
    const { holder, ttl_ms: ttlMs, devices: ids } = read.value;
    const position = ids.findIndex((id) => !indexById.has(id));
    if (position !== -1) return unknownDevice(`devices[${position}]`, ids[position] as string);
    // Its client is gone already: there would be no life-line to end.
    if (response.destroyed || request.socket.destroyed) return 'streaming';
    // Wall time, so that it rises over restarts without a state directory, unless the clock is set back.
    epoch = Math.max(epoch + 1, Date.now());
    const leaseId = randomBytes(16).toString('hex') as LeaseId;
    settle();
    if (arbitration.grant({ leaseId, epoch, holder, ttlMs, devices: ids.map((id) => indexById.get(id) as number) }, monotonicMs()) === 'too-many-leases') return problem('too-many-leases', `${LEASES_MAX} leases are held; release one first`, { allowed: LEASES_MAX });
    lifeLines.set(leaseId, response);
    response.once('close', () => {
      if (lifeLines.delete(leaseId)) end(leaseId, 'released');
    });
    response.writeHead(201, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
    response.write(`${JSON.stringify({ type: 'granted', lease_id: leaseId, epoch, ttl_ms: ttlMs, devices: ids })}\n`);
    settle();
    return 'streaming';
  }

  function putTargets(leaseId: LeaseId, text: string): Answer {
    const read = readShape(targetsRequest, text);
    if (read.kind === 'refused') return read.answer;
    const { epoch: givenEpoch, seq, targets } = read.value;
    // A device that does not exist is not one of this lease: -1 is held by nobody.
    const wanted = targets.map(({ devices: ids, clock_mhz: clockMhz, hold_ms: holdMs = 1 }) => ({ devices: ids.map((id) => indexById.get(id) ?? -1), clockMhz, holdMs }));
    const outcome = arbitration.putTargets({ leaseId, epoch: givenEpoch, seq, targets: wanted }, monotonicMs());
    settle();
    return answerPut(outcome, leaseId, { epoch: givenEpoch, seq, targets });
  }

  function answerPut(outcome: PutOutcome, leaseId: LeaseId, given: { readonly epoch: number; readonly seq: number; readonly targets: readonly { readonly devices: readonly string[] }[] }): Answer {
    switch (outcome.kind) {
      case 'accepted': {
        const nowMs = monotonicMs();
        const result = ({ device, requestedMhz, demandMhz, clamped }: Accepted): object => ({ device: devices[device]?.id, control: 'clock', requested_mhz: requestedMhz, demand_mhz: demandMhz, target_mhz: arbitration.target(device, nowMs), clamped, status: 'applied' });
        return json({ lease_id: leaseId, ttl_ms: outcome.ttlMs, results: outcome.accepted.map(result) });
      }
      case 'unknown-lease':
        return unknownLease();
      case 'other-epoch':
        return problem('stale-epoch', `epoch: got ${given.epoch}, this lease has ${outcome.epoch}`, { field: 'epoch', given: given.epoch, allowed: outcome.epoch });
      case 'stale-seq':
        return problem('stale-seq', `seq: got ${given.seq}, wanted more than ${outcome.lastSeq}`, { field: 'seq', given: given.seq, allowed: `more than ${outcome.lastSeq}` });
      case 'not-held': {
        const field = `targets[${outcome.target}].devices[${outcome.position}]`;
        const device = given.targets[outcome.target]?.devices[outcome.position];
        return problem('bad-request', `${field}: got ${JSON.stringify(device)}, wanted a device of this lease`, { field, given: device });
      }
      default:
        return unreachable(outcome);
    }
  }

  /** `'streaming'`: the response is the life-line of a lease now, or its client is gone. */
  async function answer(request: IncomingMessage, response: ServerResponse): Promise<Answer | 'streaming'> {
    const [path = '', queryText = ''] = (request.url ?? '').split('?', 2);
    const { method } = request;
    const wrongMethod = (allowed: string): Answer => ({ ...problem('wrong-method', `got ${method}, this path knows ${allowed}`), headers: { allow: allowed } });
    if (path === '/healthz' || path === '/readyz' || path === '/v1/devices' || path === '/v1/samples') {
      if (method !== 'GET') return wrongMethod('GET');
      if (path === '/healthz') return json({ status: 'ok' });
      if (path === '/readyz') return json({ status: 'ready', mode: 'control', restores_pending: [], stand_in: true });
      settle();
      return path === '/v1/devices' ? describeDevices() : sampleDevices(new URLSearchParams(queryText));
    }
    const leaseId = /^\/v1\/leases\/([^/]+)/.exec(path)?.[1] as LeaseId | undefined;
    if (path !== '/v1/leases' && (leaseId === undefined || (path !== `/v1/leases/${leaseId}` && path !== `/v1/leases/${leaseId}/targets`))) {
      return problem('unknown-path', `${path} is not a path of this agent; it is a stand-in without /v1/stream and /metrics`);
    }
    const allowed = leaseId === undefined ? 'POST' : path.endsWith('/targets') ? 'PUT' : 'DELETE';
    if (method !== allowed) return wrongMethod(allowed);
    const body = await readBody(request);
    if (body.kind === 'gone') return 'streaming';
    if (body.kind === 'too-large') return { ...problem('body-too-large', `wanted at most ${BODY_BYTES_MAX} bytes`, { allowed: BODY_BYTES_MAX }), headers: { connection: 'close' } };
    if (leaseId === undefined) return grant(body.text, request, response);
    if (allowed === 'PUT') return putTargets(leaseId, body.text);
    settle();
    return end(leaseId, 'released') ? { status: 204, contentType: '', body: null } : unknownLease();
  }

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const answered = await answer(request, response);
    if (answered === 'streaming') return;
    const { status, contentType, body, headers = {} } = answered;
    response.writeHead(status, body === null ? headers : { 'content-type': contentType, ...headers });
    response.end(body === null ? undefined : JSON.stringify(body));
  }

  const server = createServer({ requestTimeout: REQUEST_READ_MS_MAX, headersTimeout: REQUEST_READ_MS_MAX, connectionsCheckingInterval: 1_000 }, (request, response) => {
    void serve(request, response);
  });
  server.maxConnections = CONNECTIONS_MAX;

  const heartbeat = setInterval(() => {
    for (const lifeLine of lifeLines.values()) {
      // A client that does not read gets no more lines; its TTL judges it.
      if (!lifeLine.writableNeedDrain) lifeLine.write(`${JSON.stringify({ type: 'heartbeat' })}\n`);
    }
  }, HEARTBEAT_EVERY_MS);

  function restoreAll(): void {
    for (const device of devices) {
      device.toldMhz = null;
      lock(device, null);
    }
  }
  function onSignal(signal: NodeJS.Signals): void {
    restoreAll();
    // Without us the signal would have ended the process; where nobody else listens to it, it still does.
    for (const name of SIGNALS) process.off(name, onSignal);
    if (process.listenerCount(signal) === 0) process.kill(process.pid, signal);
  }

  async function close(): Promise<void> {
    if (closing) return;
    closing = true;
    clearInterval(heartbeat);
    for (const leaseId of lifeLines.keys()) end(leaseId, 'shutdown');
    clearTimeout(timer);
    restoreAll();
    process.off('exit', restoreAll);
    for (const name of SIGNALS) process.off(name, onSignal);
    const closed = once(server, 'close');
    server.close();
    server.closeIdleConnections();
    const impatient = setTimeout(() => server.closeAllConnections(), 200);
    await closed;
    clearTimeout(impatient);
    for (const { file } of devices) file.close();
  }

  // What an earlier one left behind when it was killed.
  restoreAll();
  process.on('exit', restoreAll);
  for (const name of SIGNALS) process.on(name, onSignal);
  try {
    server.listen(socketPath);
    await once(server, 'listening');
    chmodSync(socketPath, 0o600);
  } catch (cause) {
    clearInterval(heartbeat);
    process.off('exit', restoreAll);
    for (const name of SIGNALS) process.off(name, onSignal);
    for (const { file } of devices) file.close();
    throw new AgentStandInError(`${socketPath}: cannot listen: ${(cause as Error).message}`, { cause });
  }
  return { socketPath, devices: devices.map(({ id }) => id), close };
}

function openDevices(deviceDir: string): readonly Device[] {
  const devices: Device[] = [];
  try {
    for (let index = 0; index < DEVICES_MAX && existsSync(join(deviceDir, `${index}.json`)); index++) {
      devices.push({ id: `sim:${index}`, description: readDeviceDescription(deviceDir, index), file: openDeviceStateFile(deviceDir, index), toldMhz: null, switches: 0, callUs: [] });
    }
  } catch (error) {
    for (const { file } of devices) file.close();
    throw error;
  }
  if (devices.length === 0) throw new AgentStandInError(`${deviceDir}: no emulated devices in it; start \`paceline emulate\` first`);
  return devices;
}

/** A write to an open emulated device fails only as a whole machine does; so there are no failed groups here. */
function lock({ description, file }: Device, ceilingMhz: number | null): void {
  const powerLimitMw = file.readCommand()?.powerLimitMw ?? 0;
  // As NVML's: from the lowest clock, so that an idle device may fall to its own idle clocks.
  const lockMinMhz = ceilingMhz === null ? 0 : (description.clocksMhz[0] as number);
  file.writeCommand({ lockMinMhz, lockMaxMhz: ceilingMhz ?? 0, powerLimitMw, writerPid: process.pid, writtenAtNs: process.hrtime.bigint() });
}

function tell(device: Device, targetMhz: number | null): void {
  if (device.toldMhz === targetMhz) return;
  const startedAtNs = process.hrtime.bigint();
  lock(device, targetMhz);
  device.toldMhz = targetMhz;
  device.switches++;
  device.callUs.push(Number((process.hrtime.bigint() - startedAtNs) / 1_000n));
  if (device.callUs.length > CALL_TIMES_MAX) device.callUs.shift();
}

function sampleOf({ id, file, toldMhz }: Device): object {
  const telemetry = file.readTelemetry();
  const nothing = { clock_mhz: null, power_mw: null, energy_mj: null, energy_age_ms: null, utilization_pct: null, temperature_c: null, throttle_reasons: null };
  if (telemetry === null) return { device: id, ...nothing, target_mhz: toldMhz, error: 'the telemetry block stays half written; is the emulator alive?' };
  // Before the emulator's first word nothing is known, which is not a device that cannot be read.
  if (telemetry.clockMhz === 0) return { device: id, ...nothing, target_mhz: toldMhz };
  const energyAgeNs = process.hrtime.bigint() - telemetry.energyAtNs;
  return {
    device: id,
    clock_mhz: telemetry.clockMhz,
    power_mw: telemetry.powerMw,
    energy_mj: Number(telemetry.energyMj),
    energy_age_ms: Math.max(0, Number(energyAgeNs / 1_000_000n)),
    utilization_pct: telemetry.utilizationPct,
    temperature_c: telemetry.temperatureC,
    throttle_reasons: reasonsOf(telemetry.throttleReasons),
    target_mhz: toldMhz,
  };
}

function reasonsOf(bits: bigint): string[] {
  return Array.from({ length: 64 }, (_, number) => number)
    .filter((number) => ((bits >> BigInt(number)) & 1n) === 1n)
    .map((number) => THROTTLE_REASONS[number] ?? `bit_${number}`);
}

type Body = { readonly kind: 'read'; readonly text: string } | { readonly kind: 'too-large' } | { readonly kind: 'gone' };

function readBody(request: IncomingMessage): Promise<Body> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= BODY_BYTES_MAX) chunks.push(chunk);
      else resolve({ kind: 'too-large' });
    });
    request.on('end', () => resolve({ kind: 'read', text: Buffer.concat(chunks).toString('utf8') }));
    request.on('error', () => resolve({ kind: 'gone' }));
    request.on('close', () => resolve({ kind: 'gone' }));
  });
}

/** The socket of an agent that was killed; one that answers is left alone. */
async function removeDeadSocket(socketPath: string): Promise<void> {
  if (!existsSync(socketPath)) return;
  const answers = await new Promise<boolean>((resolve) => {
    const socket = connect(socketPath);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'));
  });
  if (answers) throw new AgentStandInError(`${socketPath}: something is there already; end it, or choose another path`);
  rmSync(socketPath);
}

function unknownDevice(field: string, given: string): Answer {
  return problem('unknown-device', `${field}: got ${JSON.stringify(given)}; GET /v1/devices lists what there is`, { field, given });
}
function unknownLease(): Answer {
  return problem('unknown-lease', 'it may have expired or been released; ask for a new one');
}
function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
