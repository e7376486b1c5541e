import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createDeviceStateFile, openDeviceStateFile, readDeviceDescription, removeDevicesFrom } from '../../src/engine/device-file.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'paceline-devices-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const DESCRIPTION = { uuid: 'GPU-1', name: 'Emulated X', clocksMhz: [345, 1980], defaultPowerLimitMw: 700_000 };
const COMMAND = { lockMinMhz: 345, lockMaxMhz: 1200, powerLimitMw: 500_000, writerPid: 4242, writtenAtNs: 123_456_789_012_345n };
const TELEMETRY = { clockMhz: 1200, powerMw: 310_000, energyMj: 5_000_000_000_000n, energyAtNs: 99n, utilizationPct: 97, temperatureC: 51, throttleReasons: 4n };

test('what one end writes the other reads', () => {
  const emulator = createDeviceStateFile(directory, 3, DESCRIPTION);
  const driver = openDeviceStateFile(directory, 3);
  driver.writeCommand(COMMAND);
  emulator.writeTelemetry(TELEMETRY);
  expect(emulator.readCommand()).toEqual(COMMAND);
  expect(driver.readTelemetry()).toEqual(TELEMETRY);
  expect(readDeviceDescription(directory, 3)).toEqual(DESCRIPTION);
  emulator.close();
  driver.close();
});

test('the bytes lie where PROTOCOL.md says', () => {
  const file = createDeviceStateFile(directory, 0, DESCRIPTION);
  for (let write = 0; write < 3; write++) {
    file.writeCommand(COMMAND);
    file.writeTelemetry(TELEMETRY);
  }
  file.close();
  const bytes = readFileSync(join(directory, '0.state'));
  expect(bytes).toHaveLength(512);
  expect(bytes.toString('ascii', 0, 8)).toBe('PLDEVST1');
  expect([bytes.readBigUInt64LE(64), bytes.readUInt32LE(72), bytes.readUInt32LE(76), bytes.readUInt32LE(80), bytes.readUInt32LE(84), bytes.readBigUInt64LE(88), bytes.readBigUInt64LE(96)]).toEqual([3n, 345, 1200, 500_000, 4242, 123_456_789_012_345n, 3n]);
  expect([bytes.readBigUInt64LE(128), bytes.readUInt32LE(136), bytes.readUInt32LE(140), bytes.readBigUInt64LE(144), bytes.readBigUInt64LE(152), bytes.readUInt32LE(160), bytes.readUInt32LE(164), bytes.readBigUInt64LE(168), bytes.readBigUInt64LE(176)]).toEqual([3n, 1200, 310_000, 5_000_000_000_000n, 99n, 97, 51, 4n, 3n]);
  expect(JSON.parse(readFileSync(join(directory, '0.json'), 'utf8'))).toEqual({ uuid: 'GPU-1', name: 'Emulated X', clocks_mhz: [345, 1980], default_power_limit_mw: 700_000 });
  expect(readdirSync(directory).sort()).toEqual(['0.json', '0.state']);
});

test('a torn block reads as nothing, and the next write heals it', () => {
  const file = createDeviceStateFile(directory, 0, DESCRIPTION);
  file.writeCommand(COMMAND);
  const bytes = readFileSync(join(directory, '0.state'));
  bytes.writeBigUInt64LE(9n, 64);
  writeFileSync(join(directory, '0.state'), bytes);
  expect(file.readCommand()).toBeNull();
  file.writeCommand(COMMAND);
  expect(file.readCommand()).toEqual(COMMAND);
  file.close();
});

test('a state that is there is kept, one that is no state is refused', () => {
  const before = createDeviceStateFile(directory, 0, DESCRIPTION);
  before.writeCommand(COMMAND);
  before.close();
  const after = createDeviceStateFile(directory, 0, { ...DESCRIPTION, name: 'Another' });
  expect(after.readCommand()).toEqual(COMMAND);
  expect(readDeviceDescription(directory, 0).name).toBe('Another');
  after.close();
  writeFileSync(join(directory, '1.state'), 'nonsense');
  expect(() => createDeviceStateFile(directory, 1, DESCRIPTION)).toThrow('remove the file to start afresh');
});

test('devices of an earlier, larger emulator are removed', () => {
  for (let index = 0; index < 3; index++) createDeviceStateFile(directory, index, DESCRIPTION).close();
  writeFileSync(join(directory, 'journal'), '');
  removeDevicesFrom(directory, 1);
  expect(readdirSync(directory).sort()).toEqual(['0.json', '0.state', 'journal']);
});
