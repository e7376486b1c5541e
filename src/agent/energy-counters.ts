// Reads the energy counters of a node's devices, from whichever daemon stands there. What a counter says is of its last tick,
// some 100 ms ago: it is carried forward to the instant of the reading with the power of that instant, where the daemon tells both.
import { z } from 'zod';
import type { AgentAddress } from './connection.ts';
import { callFor, createConnection } from './connection.ts';

export interface CounterSample {
  /** As the device has it: this may not fall, unless the counter has begun anew. */
  readonly counterMj: number;
  /** Carried forward. */
  readonly energyJ: number;
  readonly powerW: number | null;
}

/** Of one device: what it says, or why it says nothing. */
export type CounterReading = { readonly kind: 'read'; readonly sample: CounterSample } | { readonly kind: 'unread'; readonly why: string };

export interface EnergyCounters {
  /** By device, of all that the daemon has. Throws `AgentError`. */
  read(): Promise<ReadonlyMap<string, CounterReading>>;
  close(): Promise<void>;
}

/** A counter that has not ticked for so long has stopped: its driver or emulator is gone. */
export const COUNTER_AGE_MS_MAX = 2_500;

const samplesSchema = z.object({
  samples: z.array(z.object({ device: z.string(), energy_mj: z.number().min(0).nullish(), energy_age_ms: z.number().min(0).nullish(), power_mw: z.number().min(0).nullish(), error: z.string().nullish() })),
});
const zeusdSchema = z.record(z.string(), z.object({ energy_mj: z.number().min(0) }));

const NO_COUNTERS = 'no list of energy counters';

export function createEnergyCounters(kind: 'paceline' | 'zeusd', address: AgentAddress): EnergyCounters {
  const connection = createConnection(address, { connectionsMax: 1, reasonOf: () => null });

  /** Of all, since one that is not there any more would have the others refused with it. */
  async function ofAgent(): Promise<ReadonlyMap<string, CounterReading>> {
    const { samples } = await callFor(connection, samplesSchema, { path: '/v1/samples', isNot: NO_COUNTERS });
    return new Map(samples.map((sample) => [sample.device, readingOf(sample)]));
  }

  /** zeusd tells neither when a counter ticked nor, in the same answer, the power: what it says stands as it is. */
  async function ofZeusd(): Promise<ReadonlyMap<string, CounterReading>> {
    const said = await callFor(connection, zeusdSchema, { path: '/gpu/get_cumulative_energy', isNot: NO_COUNTERS });
    return new Map(Object.entries(said).map(([gpuId, { energy_mj: counterMj }]) => [`zeusd:${gpuId}`, { kind: 'read', sample: { counterMj, energyJ: counterMj / 1_000, powerW: null } }]));
  }

  return { read: kind === 'zeusd' ? ofZeusd : ofAgent, close: () => connection.close() };
}

function readingOf({ energy_mj: counterMj, energy_age_ms: ageMs, power_mw: powerMw, error }: z.output<typeof samplesSchema>['samples'][number]): CounterReading {
  if (error != null) return { kind: 'unread', why: `cannot be read: ${error}` };
  if (counterMj == null) return { kind: 'unread', why: 'tells no energy' };
  if (ageMs != null && ageMs > COUNTER_AGE_MS_MAX) return { kind: 'unread', why: `its counter has not ticked for ${Math.round(ageMs)} ms` };
  return { kind: 'read', sample: { counterMj, energyJ: carriedForwardJ(counterMj, powerMw, ageMs), powerW: powerMw == null ? null : powerMw / 1_000 } };
}

/** From its last tick to now, with the power of now; where power or age is not told the counter stands as it is. */
export function carriedForwardJ(counterMj: number, powerMw: number | null | undefined, ageMs: number | null | undefined): number {
  return counterMj / 1_000 + ((powerMw ?? 0) * (ageMs ?? 0)) / 1e6;
}
