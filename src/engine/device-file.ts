// The files that an emulated device shares with the agent's `sim` driver and the fake NVML library: layout and both ends of
// it. agent/PROTOCOL.md, "The emulated device", is the one place that states the format.
import { closeSync, constants, existsSync, openSync, readFileSync, readSync, readdirSync, renameSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { makeDirectory } from '../make-directory.ts';

/** What the driver wants; 0 stands for "not locked" and "default limit". */
export interface DeviceCommand {
  readonly lockMinMhz: number;
  readonly lockMaxMhz: number;
  readonly powerLimitMw: number;
  readonly writerPid: number;
  /** CLOCK_MONOTONIC. */
  readonly writtenAtNs: bigint;
}

/** What the device shows. */
export interface DeviceTelemetry {
  readonly clockMhz: number;
  readonly powerMw: number;
  readonly energyMj: bigint;
  /** When `energyMj` last ticked, CLOCK_MONOTONIC. */
  readonly energyAtNs: bigint;
  readonly utilizationPct: number;
  readonly temperatureC: number;
  /** NVML's bits. */
  readonly throttleReasons: bigint;
}

export interface DeviceDescription {
  readonly uuid: string;
  readonly name: string;
  /** Ascending; the unlocked device runs at the last. */
  readonly clocksMhz: readonly number[];
  readonly defaultPowerLimitMw: number;
}

/** One end of `n.state`. Either end may read both blocks; the emulator writes telemetry, a driver writes commands. */
export interface DeviceStateFile {
  /** `null` where a writer was in the middle of it, several times over: what was read before still stands. */
  readCommand(): DeviceCommand | null;
  readTelemetry(): DeviceTelemetry | null;
  writeCommand(command: DeviceCommand): void;
  writeTelemetry(telemetry: DeviceTelemetry): void;
  close(): void;
}

/** The files are unusable: missing, of another size or format. */
export class DeviceFileError extends Error {
  override name = 'DeviceFileError';
}

export const STATE_BYTES = 512;
const MAGIC = Buffer.from('PLDEVST1', 'ascii');
const COMMAND_AT = 64;
const COMMAND_BYTES = 40;
const TELEMETRY_AT = 128;
const TELEMETRY_BYTES = 56;
const SEQUENCE_BYTES = 8;
/** A writer is in a block for about a microsecond; who sees it torn so often looks at a writer that died there. */
const READS_MAX = 8;

const descriptionShape = z.object({ uuid: z.string(), name: z.string(), clocks_mhz: z.array(z.number().int().positive()).min(1), default_power_limit_mw: z.number().int().positive() });

/**
 * The emulator's end. A state file that is there already is kept as it is, for a lock and the energy counter of a real
 * device outlive whoever set and read them; the description is written anew.
 */
export function createDeviceStateFile(directory: string, index: number, description: DeviceDescription): DeviceStateFile {
  makeDirectory(directory);
  const path = statePath(directory, index);
  if (!existsSync(path)) {
    const bytes = Buffer.alloc(STATE_BYTES);
    MAGIC.copy(bytes);
    writeWhole(path, bytes);
  }
  const file = openDeviceStateFile(directory, index);
  const { uuid, name, clocksMhz, defaultPowerLimitMw } = description;
  writeWhole(descriptionPath(directory, index), JSON.stringify({ uuid, name, clocks_mhz: clocksMhz, default_power_limit_mw: defaultPowerLimitMw }));
  return file;
}

/** Either end of a state file that is there. */
export function openDeviceStateFile(directory: string, index: number): DeviceStateFile {
  const path = statePath(directory, index);
  const descriptor = openSync(path, constants.O_RDWR);
  const head = Buffer.alloc(STATE_BYTES);
  if (readSync(descriptor, head, 0, STATE_BYTES, 0) !== STATE_BYTES || !head.subarray(0, MAGIC.length).equals(MAGIC)) {
    closeSync(descriptor);
    throw new DeviceFileError(`${path}: want ${STATE_BYTES} bytes that begin with ${MAGIC.toString()}; remove the file to start afresh`);
  }
  const command = Buffer.alloc(COMMAND_BYTES);
  const telemetry = Buffer.alloc(TELEMETRY_BYTES);

  function read(block: Buffer, at: number): boolean {
    for (let attempt = 0; attempt < READS_MAX; attempt++) {
      if (readSync(descriptor, block, 0, block.length, at) === block.length && block.compare(block, 0, SEQUENCE_BYTES, block.length - SEQUENCE_BYTES) === 0) return true;
    }
    return false;
  }
  /** Fills in the block's next sequence number at both ends and writes it in one piece. */
  function write(block: Buffer, at: number, fill: () => void): void {
    readSync(descriptor, block, 0, block.length, at);
    // A torn block of a writer that died has two numbers; going on from the higher one heals it.
    const before = [block.readBigUInt64LE(0), block.readBigUInt64LE(block.length - SEQUENCE_BYTES)] as const;
    const sequence = BigInt.asUintN(64, (before[0] > before[1] ? before[0] : before[1]) + 1n);
    block.writeBigUInt64LE(sequence, 0);
    fill();
    block.writeBigUInt64LE(sequence, block.length - SEQUENCE_BYTES);
    writeSync(descriptor, block, 0, block.length, at);
  }

  return {
    readCommand: () => {
      if (!read(command, COMMAND_AT)) return null;
      return {
        lockMinMhz: command.readUInt32LE(8),
        lockMaxMhz: command.readUInt32LE(12),
        powerLimitMw: command.readUInt32LE(16),
        writerPid: command.readUInt32LE(20),
        writtenAtNs: command.readBigUInt64LE(24),
      };
    },
    readTelemetry: () => {
      if (!read(telemetry, TELEMETRY_AT)) return null;
      return {
        clockMhz: telemetry.readUInt32LE(8),
        powerMw: telemetry.readUInt32LE(12),
        energyMj: telemetry.readBigUInt64LE(16),
        energyAtNs: telemetry.readBigUInt64LE(24),
        utilizationPct: telemetry.readUInt32LE(32),
        temperatureC: telemetry.readUInt32LE(36),
        throttleReasons: telemetry.readBigUInt64LE(40),
      };
    },
    writeCommand: ({ lockMinMhz, lockMaxMhz, powerLimitMw, writerPid, writtenAtNs }) => {
      write(command, COMMAND_AT, () => {
        command.writeUInt32LE(lockMinMhz, 8);
        command.writeUInt32LE(lockMaxMhz, 12);
        command.writeUInt32LE(powerLimitMw, 16);
        command.writeUInt32LE(writerPid, 20);
        command.writeBigUInt64LE(writtenAtNs, 24);
      });
    },
    writeTelemetry: ({ clockMhz, powerMw, energyMj, energyAtNs, utilizationPct, temperatureC, throttleReasons }) => {
      write(telemetry, TELEMETRY_AT, () => {
        telemetry.writeUInt32LE(clockMhz, 8);
        telemetry.writeUInt32LE(powerMw, 12);
        telemetry.writeBigUInt64LE(energyMj, 16);
        telemetry.writeBigUInt64LE(energyAtNs, 24);
        telemetry.writeUInt32LE(utilizationPct, 32);
        telemetry.writeUInt32LE(temperatureC, 36);
        telemetry.writeBigUInt64LE(throttleReasons, 40);
      });
    },
    close: () => closeSync(descriptor),
  };
}

export function readDeviceDescription(directory: string, index: number): DeviceDescription {
  const path = descriptionPath(directory, index);
  const parsed = descriptionShape.safeParse(JSON.parse(readFileSync(path, 'utf8')));
  if (!parsed.success) throw new DeviceFileError(`${path}: ${z.prettifyError(parsed.error)}`);
  const { uuid, name, clocks_mhz: clocksMhz, default_power_limit_mw: defaultPowerLimitMw } = parsed.data;
  return { uuid, name, clocksMhz, defaultPowerLimitMw };
}

/** Removes the devices from `count` on that an earlier, larger emulator left: nobody would move them. */
export function removeDevicesFrom(directory: string, count: number): void {
  for (const name of readdirSync(directory)) {
    const index = /^(\d+)\.(?:json|state)$/.exec(name)?.[1];
    if (index !== undefined && Number(index) >= count) rmSync(join(directory, name), { force: true });
  }
}

function statePath(directory: string, index: number): string {
  return join(directory, `${index}.state`);
}
function descriptionPath(directory: string, index: number): string {
  return join(directory, `${index}.json`);
}
/** Readers see the file whole or not at all. */
function writeWhole(path: string, content: Buffer | string): void {
  const unfinished = `${path}.${process.pid}.tmp`;
  writeFileSync(unfinished, content);
  renameSync(unfinished, path);
}
