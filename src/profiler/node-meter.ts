// The devices of the replica under test, as their node's agent tells of them: clocks they have, energy, clock and throttling now.
import { z } from 'zod';
import { type AgentAddress, AgentError, callFor, createConnection } from '../agent/connection.ts';
import { carriedForwardJ, COUNTER_AGE_MS_MAX } from '../agent/energy-counters.ts';

export interface DeviceFacts {
  readonly device: string;
  readonly name: string;
  readonly controls: readonly string[];
  readonly clocksMhz: readonly number[];
  readonly floorMhz: number | null;
  readonly ceilingMhz: number | null;
  /** Median time of a switch, as the agent has measured it: the call, and until the clock had arrived; `null` before any. */
  readonly switchMs: number | null;
}

/** All devices of the replica at one instant. */
export interface NodeSample {
  readonly atMs: number;
  readonly energyJ: number | null;
  /** Of the slowest. */
  readonly clockMhz: number | null;
  readonly throttleReasons: readonly string[];
}

export interface NodeMeter {
  facts(): Promise<readonly DeviceFacts[]>;
  /** Throws `AgentError`, also where a device is not there or its counter has stopped. */
  sample(): Promise<NodeSample>;
  close(): Promise<void>;
}

const settleSchema = z.object({ count: z.number(), us_p50: z.number() });
const factsSchema = z.object({
  devices: z.array(
    z.object({
      device: z.string(),
      name: z.string().nullish(),
      controls: z.array(z.string()),
      clocks_mhz: z.array(z.number()).nullish(),
      floor_mhz: z.number().nullish(),
      ceiling_mhz: z.number().nullish(),
      switch: z.object({ call_us_p50: z.number().nullish(), settle: z.array(settleSchema).nullish() }).nullish(),
    }),
  ),
});
const samplesSchema = z.object({
  samples: z.array(z.object({ device: z.string(), clock_mhz: z.number().nullish(), power_mw: z.number().nullish(), energy_mj: z.number().nullish(), energy_age_ms: z.number().nullish(), throttle_reasons: z.array(z.string()).nullish(), error: z.string().nullish() })),
});

const NO_PROTOCOL = 'what is not the protocol';

export function createNodeMeter(address: AgentAddress, devices: readonly string[], now: () => number): NodeMeter {
  const connection = createConnection(address, { connectionsMax: 1, reasonOf: () => null });

  return {
    facts: async () => {
      const all = (await callFor(connection, factsSchema, { path: '/v1/devices', isNot: NO_PROTOCOL })).devices;
      return devices.map((device) => {
        const known = all.find((one) => one.device === device);
        if (known === undefined) throw new AgentError(`the agent has no device '${device}'; it has: ${all.map((one) => one.device).join(', ') || 'none'}`, null);
        const settles = known.switch?.settle ?? [];
        const seen = settles.reduce((sum, { count }) => sum + count, 0);
        const settleUs = seen === 0 ? null : settles.reduce((sum, { count, us_p50: us }) => sum + count * us, 0) / seen;
        return {
          device,
          name: known.name ?? 'unknown device',
          controls: known.controls,
          clocksMhz: known.clocks_mhz ?? [],
          floorMhz: known.floor_mhz ?? null,
          ceilingMhz: known.ceiling_mhz ?? null,
          switchMs: settleUs === null ? null : ((known.switch?.call_us_p50 ?? 0) + settleUs) / 1_000,
        };
      });
    },
    sample: async () => {
      const askedAtMs = now();
      const { samples } = await callFor(connection, samplesSchema, { path: `/v1/samples?${devices.map((device) => `device=${encodeURIComponent(device)}`).join('&')}`, isNot: NO_PROTOCOL });
      const own = devices.map((device) => {
        const sample = samples.find((one) => one.device === device);
        if (sample === undefined || sample.error != null) throw new AgentError(`device ${device}: ${sample?.error ?? 'is not among the samples'}`, null);
        if (sample.energy_age_ms != null && sample.energy_age_ms > COUNTER_AGE_MS_MAX) throw new AgentError(`device ${device}: its energy counter has not ticked for ${Math.round(sample.energy_age_ms)} ms`, null);
        return sample;
      });
      const energies = own.map(({ energy_mj: energyMj, power_mw: powerMw, energy_age_ms: ageMs }) => (energyMj == null ? null : carriedForwardJ(energyMj, powerMw, ageMs)));
      const clocks = own.flatMap(({ clock_mhz: clockMhz }) => (clockMhz == null ? [] : [clockMhz]));
      return {
        // Half way between question and answer.
        atMs: (askedAtMs + now()) / 2,
        energyJ: energies.some((energy) => energy === null) ? null : energies.reduce<number>((sum, energy) => sum + (energy ?? 0), 0),
        clockMhz: clocks.length === 0 ? null : Math.min(...clocks),
        throttleReasons: [...new Set(own.flatMap(({ throttle_reasons: reasons }) => reasons ?? []))],
      };
    },
    close: () => connection.close(),
  };
}
