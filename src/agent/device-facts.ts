// What an agent says of its devices that a replica without a profile is begun with: which clocks there are, and how much power.
import { z } from 'zod';
import { type AgentAddress, AgentError, createConnection } from './connection.ts';

export interface DeviceFacts {
  readonly name: string;
  /** That all the devices can be set to, ascending. */
  readonly clocksMhz: readonly number[];
  /** The least of their limits; `null`: they have none to tell. */
  readonly powerLimitW: number | null;
}

const devicesSchema = z.object({ devices: z.array(z.object({ device: z.string(), name: z.string().nullish(), clocks_mhz: z.array(z.number().positive()).nullish(), power_limit_mw: z.number().positive().nullish() })) });

/** Throws `AgentError` where the agent cannot be reached, has not all of the devices, or they have no clock in common. */
export async function askDeviceFacts(address: AgentAddress, devices: readonly string[]): Promise<DeviceFacts> {
  const connection = createConnection(address, { connectionsMax: 1, reasonOf: () => null });
  try {
    const told = devicesSchema.parse(JSON.parse(await connection.call('GET', '/v1/devices'))).devices;
    const own = devices.map((device) => {
      const found = told.find((candidate) => candidate.device === device);
      if (found === undefined) throw new AgentError(`it has no device '${device}'; it has: ${told.map((each) => each.device).join(', ') || 'none'}`, null);
      return found;
    });
    const [first, ...others] = own;
    const clocksMhz = (first?.clocks_mhz ?? []).filter((clockMhz) => others.every(({ clocks_mhz: clocks }) => clocks?.includes(clockMhz) === true)).sort((a, b) => a - b);
    if (clocksMhz.length === 0) throw new AgentError(`${devices.join(', ')} have no clock in common`, null);
    const limitsMw = own.flatMap(({ power_limit_mw: limit }) => limit ?? []);
    return { name: first?.name ?? 'unknown', clocksMhz, powerLimitW: limitsMw.length === 0 ? null : Math.min(...limitsMw) / 1_000 };
  } catch (error) {
    throw error instanceof AgentError ? error : new AgentError(`it was answered with no list of devices: ${error instanceof Error ? error.message : String(error)}`, null, { cause: error });
  } finally {
    await connection.close();
  }
}
