// Speaks the HTTP API of zeusd 0.5 (https://ml.energy/zeus/zeusd/): GPUs by index, everything in the query, bodies empty.
// Commands of one GPU are done in the order in which they arrived; `block=true` answers when the driver has.
import { z } from 'zod';
import type { AgentAddress } from './connection.ts';
import { callFor, createConnection } from './connection.ts';

const discoverSchema = z.object({
  gpus: z.array(z.object({ id: z.int().min(0), name: z.string() })),
  enabled_api_groups: z.array(z.string()),
  auth_required: z.boolean().optional(),
});
const errorSchema = z.union([z.object({ errors: z.record(z.string(), z.string()) }), z.object({ error: z.string() })]);

export type Discovered = z.output<typeof discoverSchema>;

export interface ZeusdClient {
  /** Needs no token. */
  discover(): Promise<Discovered>;
  /** Both resolve when every GPU is set, and reject where one of them is not, whichever. */
  lockClocks(gpuIds: readonly number[], range: { readonly minMhz: number; readonly maxMhz: number }): Promise<void>;
  resetClocks(gpuIds: readonly number[]): Promise<void>;
  close(): Promise<void>;
}

/** One request is under way per replica of the node, and discovery. */
const CONNECTIONS_MAX = 16;

export function createZeusdClient(address: AgentAddress): ZeusdClient {
  const connection = createConnection(address, { connectionsMax: CONNECTIONS_MAX, reasonOf });
  return {
    discover: () => callFor(connection, discoverSchema, { path: '/discover', isNot: "what is not zeusd's API" }),
    lockClocks: async (gpuIds, { minMhz, maxMhz }) => {
      await connection.call('POST', `/gpu/set_gpu_locked_clocks?gpu_ids=${gpuIds.join(',')}&min_clock_mhz=${minMhz}&max_clock_mhz=${maxMhz}&block=true`);
    },
    resetClocks: async (gpuIds) => {
      await connection.call('POST', resetPath(gpuIds));
    },
    close: () => connection.close(),
  };
}

/** The watchdog sends it too, from a process of its own. */
export function resetPath(gpuIds: readonly number[]): string {
  return `/gpu/reset_gpu_locked_clocks?gpu_ids=${gpuIds.join(',')}&block=true`;
}

/** `zeusd:3` is the GPU with index 3; `null` for any other name. */
export function gpuIdOf(device: string): number | null {
  const index = /^zeusd:(0|[1-9]\d{0,2})$/.exec(device)?.[1];
  return index === undefined ? null : Number(index);
}

/** One error per GPU, one for all, or plain text. */
function reasonOf(text: string): string | null {
  try {
    const said = errorSchema.parse(JSON.parse(text));
    if ('error' in said) return said.error;
    return Object.entries(said.errors).map(([gpuId, error]) => `zeusd:${gpuId}: ${error}`).join('; ');
  } catch {
    return null;
  }
}
