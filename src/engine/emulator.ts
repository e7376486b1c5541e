// Emulated replicas in one process: builds each from engine, devices and HTTP server, carries commands and telemetry between
// the devices and their files, and takes all of it down again.
import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Profile } from '../frontier/profile.ts';
import { limitsOf } from './batching.ts';
import type { DeviceCommand, DeviceStateFile } from './device-file.ts';
import { createDeviceStateFile, removeDevicesFrom } from './device-file.ts';
import type { ClockLock } from './device.ts';
import { clockList } from './device.ts';
import type { TruthScale } from './physics.ts';
import { createPhysics } from './physics.ts';
import type { RealTimeReplica } from './real-time.ts';
import { createRealTimeReplica } from './real-time.ts';
import type { RequestNote } from './server.ts';
import { createReplicaServer } from './server.ts';

/** How often commands are looked for. Small against a switch (5–25 ms); at 32 devices a few per cent of a core. */
const COMMAND_POLL_MS = 5;
/** Telemetry is written every this many polls: 20 ms, as fresh as NVML's own power reading gets. */
const POLLS_PER_TELEMETRY = 4;
/** H100 SXM's; profiles do not tell. It is only shown: nothing is capped before a driver sets a limit. */
const POWER_LIMIT_W = 700;

export interface EmulatorOptions {
  readonly profile: Profile;
  readonly replicas: number;
  readonly host: string;
  /** Of the first replica, the others follow; 0 takes any free ones. */
  readonly port: number;
  readonly deviceDir: string;
  readonly seed: number;
  /** Served under this name instead of the profile's. */
  readonly model?: string;
  readonly truth?: TruthScale;
  readonly priorityScheduling?: boolean;
  /** Default: the engine's `WAITING_MAX`. */
  readonly waitingMax?: number;
  readonly onRequest?: (replica: number, note: RequestNote) => void;
}

export interface Emulator {
  readonly replicas: readonly { readonly url: string; readonly devices: readonly string[]; readonly model: string }[];
  /** Ends all requests and servers. The device files stay, as devices do: a lock that nobody took back is still there. */
  close(): Promise<void>;
}

interface EmulatedDevice {
  readonly replica: RealTimeReplica;
  /** Within the replica's group. */
  readonly member: number;
  readonly file: DeviceStateFile;
  command: DeviceCommand | null;
}

export async function startEmulator(options: EmulatorOptions): Promise<Emulator> {
  const { profile, host, port, seed, deviceDir, priorityScheduling = false, model = profile.model, waitingMax, onRequest } = options;
  const devicesPerReplica = profile.deviceGroup.devices;
  const devices: EmulatedDevice[] = [];
  const servers: Server[] = [];
  const replicas: Emulator['replicas'][number][] = [];
  const live: RealTimeReplica[] = [];

  async function close(): Promise<void> {
    clearInterval(polling);
    for (const device of devices) writeTelemetry(device);
    for (const replica of live) replica.close();
    await Promise.all(servers.map(closeServer));
    for (const device of devices) device.file.close();
    devices.length = 0;
  }

  let polls = 0;
  function poll(): void {
    const telemetryDue = polls++ % POLLS_PER_TELEMETRY === 0;
    for (const device of devices) {
      const obeyed = obey(device);
      if (obeyed || telemetryDue) writeTelemetry(device);
    }
  }
  const polling = setInterval(poll, COMMAND_POLL_MS);

  try {
    for (let index = 0; index < options.replicas; index++) {
      const physics = createPhysics(profile, options.truth);
      const limits = { ...limitsOf(profile), ...(waitingMax === undefined ? {} : { waitingMax }) };
      const replicaSeed = seed + index * 7919;
      const description = { clocksMhz: clockList(physics.measuredClocksMhz), defaultPowerLimitMw: POWER_LIMIT_W * 1000 };
      const files = Array.from({ length: devicesPerReplica }, (_, member) => {
        const device = index * devicesPerReplica + member;
        return createDeviceStateFile(deviceDir, device, { ...description, uuid: uuidOf(device), name: `Emulated ${profile.deviceGroup.device}` });
      });
      const initial = files.map((file) => ({ lock: lockOf(file.readCommand()), energyJ: Number(file.readTelemetry()?.energyMj ?? 0n) / 1000 }));
      const replica = createRealTimeReplica({ physics, limits, seed: replicaSeed, initial });
      live.push(replica);
      files.forEach((file, member) => {
        const device = { replica, member, file, command: null };
        devices.push(device);
        obey(device);
        writeTelemetry(device);
      });
      const server = createReplicaServer({ replica, index, served: { model, priorityScheduling }, limits, seed: replicaSeed, ...(profile.sleep === undefined ? {} : { sleep: profile.sleep }), ...(onRequest === undefined ? {} : { onRequest: (note) => onRequest(index, note) }) });
      servers.push(server);
      server.listen(port === 0 ? 0 : port + index, host);
      await once(server, 'listening');
      const { port: actualPort } = server.address() as AddressInfo;
      replicas.push({ url: `http://${host.includes(':') ? `[${host}]` : host}:${actualPort}`, devices: files.map((_, member) => `sim:${index * devicesPerReplica + member}`), model });
    }
    removeDevicesFrom(deviceDir, devices.length);
  } catch (error) {
    await close();
    throw error;
  }
  return { replicas, close };
}

/** Passes on what the driver wants now; true where that changed. */
function obey(device: EmulatedDevice): boolean {
  const command = device.file.readCommand();
  const { command: before, replica, member } = device;
  if (command === null || (before !== null && command.writtenAtNs === before.writtenAtNs && command.lockMinMhz === before.lockMinMhz && command.lockMaxMhz === before.lockMaxMhz && command.powerLimitMw === before.powerLimitMw)) return false;
  device.command = command;
  replica.lock(member, lockOf(command));
  if (command.powerLimitMw !== (before?.powerLimitMw ?? 0)) replica.limitPower(member, command.powerLimitMw === 0 ? null : command.powerLimitMw / 1000);
  return true;
}

function lockOf(command: DeviceCommand | null): ClockLock | null {
  return command === null || command.lockMaxMhz === 0 ? null : { minMhz: command.lockMinMhz, maxMhz: command.lockMaxMhz };
}

function writeTelemetry({ replica, member, file }: EmulatedDevice): void {
  const reading = replica.reading(member);
  file.writeTelemetry({
    clockMhz: Math.round(reading.clockMhz),
    powerMw: Math.round(reading.powerW * 1000),
    energyMj: BigInt(Math.round(reading.tickEnergyJ * 1000)),
    energyAtNs: BigInt(Math.round(reading.tickAtMs * 1e6)),
    utilizationPct: Math.round(reading.utilisationPct),
    temperatureC: Math.round(reading.temperatureC),
    throttleReasons: BigInt(reading.throttleReasons),
  });
}

/** Stable over restarts, as a device's is. */
function uuidOf(device: number): string {
  return `GPU-00000000-0000-4000-8000-${device.toString(16).padStart(12, '0')}`;
}

async function closeServer(server: Server): Promise<void> {
  if (!server.listening) return;
  const closed = once(server, 'close');
  server.close();
  server.closeAllConnections();
  await closed;
}
