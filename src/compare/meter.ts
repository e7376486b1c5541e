// Where a comparison's energy comes from: `[ARM=]agent:SOCKET`, `zeusd:SOCKET` or `dcgm:URL`, with `#DEVICE,DEVICE` behind it for some of
// its devices. A meter with an arm's name counts for that arm alone: for arms that stand on GPUs of their own.
import { createEnergyCounters } from '../agent/energy-counters.ts';
import type { AgentAddress } from '../agent/connection.ts';
import { AgentError } from '../agent/connection.ts';
import { createDcgmCounters } from './dcgm-counters.ts';
import type { DeviceSample } from './energy-series.ts';

export interface MeterSpec {
  /** `null`: of all arms, which take turns on the same devices. */
  readonly arm: string | null;
  readonly kind: 'agent' | 'zeusd' | 'dcgm';
  readonly address: string;
  /** None named: all. */
  readonly devices: readonly string[];
}

export interface Meter {
  /** All wanted devices. Throws `AgentError` where one of them cannot be read. */
  read(): Promise<ReadonlyMap<string, DeviceSample>>;
  close(): Promise<void>;
}

export class MeterError extends Error {
  override name = 'MeterError';
}

const WANTED = 'want [ARM=]agent:SOCKET, [ARM=]zeusd:SOCKET or [ARM=]dcgm:URL, with #DEVICE,DEVICE behind it for some devices only';

/** Throws `MeterError`. */
export function parseMeter(text: string, armNames: readonly string[]): MeterSpec {
  const [, arm, kind, rest = ''] = /^(?:([^=:/#]+)=)?(agent|zeusd|dcgm):(.+)$/s.exec(text) ?? [];
  const [address = '', devices = ''] = rest.split('#');
  if (kind === undefined || address === '') throw new MeterError(`--meter: got '${text}', ${WANTED}`);
  if (arm !== undefined && !armNames.includes(arm)) throw new MeterError(`--meter: got the arm '${arm}', there are: ${armNames.join(', ')}`);
  if (kind === 'dcgm' && !/^https?:$/.test(URL.parse(address)?.protocol ?? '')) throw new MeterError(`--meter: got '${address}', want dcgm:http://HOST:PORT (dcgm-exporter, port 9400 unless told otherwise)`);
  return { arm: arm ?? null, kind: kind as MeterSpec['kind'], address, devices: devices.split(',').filter((device) => device !== '') };
}

export function openMeter({ kind, address, devices }: MeterSpec, nowMs: () => number): Meter {
  if (kind === 'dcgm') {
    const counters = createDcgmCounters(address, nowMs);
    return { read: async () => chosen(new Map([...(await counters.read())].map(([uuid, sample]) => [uuid, { ...sample, aliases: [uuid, sample.index] }])), devices, address), close: counters.close };
  }
  const counters = createEnergyCounters(kind === 'agent' ? 'paceline' : 'zeusd', addressOf(address));
  return {
    read: async () => {
      const readings = new Map<string, DeviceSample & { aliases: readonly string[] }>();
      for (const [device, reading] of await counters.read()) {
        if (reading.kind === 'read') readings.set(device, { ...reading.sample, aliases: [device] });
        else if (devices.length === 0 || devices.includes(device)) throw new AgentError(`${address}: ${device} ${reading.why}`, null);
      }
      return chosen(readings, devices, address);
    },
    close: () => counters.close(),
  };
}

function chosen(readings: ReadonlyMap<string, DeviceSample & { readonly aliases: readonly string[] }>, devices: readonly string[], address: string): ReadonlyMap<string, DeviceSample> {
  const missing = devices.find((device) => ![...readings.values()].some(({ aliases }) => aliases.includes(device)));
  if (missing !== undefined) throw new AgentError(`${address}: no device '${missing}'; there are: ${[...readings.keys()].join(', ') || 'none'}`, null);
  const picked = [...readings].filter(([, { aliases }]) => devices.length === 0 || aliases.some((alias) => devices.includes(alias)));
  if (picked.length === 0) throw new AgentError(`${address}: has no devices`, null);
  return new Map(picked.map(([device, { counterMj, energyJ, powerW }]) => [device, { counterMj, energyJ, powerW }]));
}

/** `http://…` for a daemon on a loopback port, else a socket. */
function addressOf(text: string): AgentAddress {
  return /^https?:\/\//.test(text) ? { kind: 'tcp', origin: new URL(text).origin, tokenPath: process.env['PACELINE_AGENT_TOKEN_FILE'] ?? null } : { kind: 'socket', path: text };
}
