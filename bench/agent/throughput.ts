// What asking the agent costs: one PUT over a kept connection, and eight devices read a hundred times a second.
import { readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import type { DriverName, Rig } from './rig.ts';
import { sleep, startRig } from './rig.ts';
import { connect, lease } from './thin-client.ts';

export interface RoundTrips {
  readonly renewUs: readonly number[];
  /** A target that is applied already. */
  readonly sameUs: readonly number[];
  /** A target that writes to the device, raising and lowering in turn. */
  readonly writeUs: readonly number[];
}

export interface Sampling {
  readonly devices: number;
  readonly linesPerS: number;
  /** Worker and sentinel, of one core. */
  readonly cpuPct: number;
}

/** The kernel's ticks of `/proc/PID/stat`; 100 on every Linux that Node runs on. */
const TICKS_PER_S = 100;

export async function measureRoundTrips(driver: DriverName, count: number): Promise<RoundTrips> {
  const rig = await startRig(driver, 2);
  try {
    const held = await lease(rig.socketPath, rig.devices, 60_000);
    held.socket.on('error', () => undefined);
    const connection = await connect(rig.socketPath);
    let seq = 0;
    const put = async (targets: readonly unknown[]): Promise<number> => {
      seq += 1;
      const fromNs = process.hrtime.bigint();
      const answer = await connection.ask('PUT', `/v1/leases/${held.leaseId}/targets`, { epoch: held.epoch, seq, targets });
      const tookUs = Number(process.hrtime.bigint() - fromNs) / 1e3;
      if (answer.status !== 200) throw new Error(answer.body);
      return tookUs;
    };
    const target = (clockMhz: number): unknown => ({ devices: [rig.devices[0]], clock_mhz: clockMhz, hold_ms: 60_000 });
    const taken = { renewUs: [] as number[], sameUs: [] as number[], writeUs: [] as number[] };
    // In turn, so that a noisy moment meets all three.
    for (let round = 0; round < count; round++) {
      taken.writeUs.push(await put([target(round % 2 === 0 ? 990 : 1290)]));
      taken.sameUs.push(await put([target(round % 2 === 0 ? 990 : 1290)]));
      taken.renewUs.push(await put([]));
    }
    connection.close();
    held.socket.destroy();
    return taken;
  } finally {
    await rig.close();
  }
}

export async function measureSampling(driver: DriverName, deviceCount: number, seconds: number): Promise<Sampling> {
  const rig = await startRig(driver, deviceCount);
  try {
    const socket = createConnection(rig.socketPath);
    let lines = 0;
    socket.on('data', (chunk) => {
      for (const byte of chunk) if (byte === 10) lines += 1;
    });
    socket.write('GET /v1/stream?period_ms=10 HTTP/1.1\r\nhost: agent\r\n\r\n');
    await sleep(500);
    const before = { ticks: cpuTicks(rig), lines, at: performance.now() };
    await sleep(seconds * 1000);
    const tookS = (performance.now() - before.at) / 1000;
    // A chunk is its size, its JSON and two line ends: three a line.
    const linesPerS = (lines - before.lines) / 3 / tookS;
    const cpuPct = ((cpuTicks(rig) - before.ticks) / TICKS_PER_S / tookS) * 100;
    socket.destroy();
    return { devices: deviceCount, linesPerS, cpuPct };
  } finally {
    await rig.close();
  }
}

function cpuTicks(rig: Rig): number {
  return [rig.sentinelPid, rig.workerPid()].reduce((total, pid) => {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
    return total + Number(fields[11]) + Number(fields[12]);
  }, 0);
}
