// Energy of the devices under load, from the agents' `GET /v1/samples` (agent/PROTOCOL.md).
//
// The counter ticks about every 100 ms, so a reading is up to one tick old. It is carried forward to the instant of the
// reading with the power of that instant: energy + power × age. The alternative, waiting for a tick, would make the
// window end at the device's whim and differ between two runs being compared. What is left of the error is the change
// of power within one tick, at most 0.1 s × 600 W = 60 J per device and end; a minute under load is some 20,000 J.
import { Pool } from 'undici';
import { z } from 'zod';
import { AGENT_BODY_BYTES_MAX } from './limits.ts';

export class AgentError extends Error {
  override name = 'AgentError';
}

/** All devices at one instant. */
export interface EnergyReading {
  readonly atMs: number;
  /** Joules since whenever each counter began, by agent and device. Only differences mean something. */
  readonly energyJByDevice: ReadonlyMap<string, number>;
  /** Of all devices; `null` where one cannot tell. */
  readonly powerW: number | null;
}

export type EnergyUse =
  | { readonly kind: 'measured'; readonly energyJ: number; readonly windowS: number }
  | { readonly kind: 'unknown'; readonly why: string };

export interface EnergyMeter {
  /** Throws `AgentError`. */
  readonly read: () => Promise<EnergyReading>;
  readonly close: () => Promise<void>;
}

/** A counter that has not ticked for so long belongs to a device or an emulator that is gone. */
const ENERGY_AGE_MAX_MS = 10_000;
const AGENT_TIMEOUT_MS = 2000;

const Samples = z.looseObject({
  samples: z.array(
    z.looseObject({
      device: z.string(),
      energy_mj: z.number().nullish(),
      energy_age_ms: z.number().min(0).nullish(),
      power_mw: z.number().nullish(),
      error: z.string().nullish(),
    }),
  ),
});
type Sample = z.infer<typeof Samples>['samples'][number];

/** `devices`: only these, of whichever agent has them; none named means all. */
export function createEnergyMeter({ sockets, devices, nowMs }: { readonly sockets: readonly string[]; readonly devices: readonly string[]; readonly nowMs: () => number }): EnergyMeter {
  const agents = sockets.map((socketPath) => ({ socketPath, pool: new Pool('http://agent', { socketPath, connections: 1, headersTimeout: AGENT_TIMEOUT_MS, bodyTimeout: AGENT_TIMEOUT_MS }) }));

  return {
    read: async () => {
      const askedAtMs = nowMs();
      const answers = await Promise.all(agents.map(async ({ socketPath, pool }) => ({ socketPath, samples: await readSamples(pool, socketPath) })));
      // Half way between question and answer, which are about a millisecond apart.
      const atMs = (askedAtMs + nowMs()) / 2;
      const chosen = answers.flatMap(({ socketPath, samples }) => samples.filter(({ device }) => devices.length === 0 || devices.includes(device)).map((sample) => ({ key: `${socketPath} ${sample.device}`, sample })));
      const missing = devices.find((device) => !chosen.some(({ sample }) => sample.device === device));
      if (missing !== undefined) {
        const known = answers.flatMap(({ samples }) => samples.map(({ device }) => device));
        throw new AgentError(`agent ${sockets.join(', ')}: no device '${missing}'; there are: ${known.join(', ') || 'none'}`);
      }
      if (chosen.length === 0) throw new AgentError(`agent ${sockets.join(', ')}: has no devices`);
      return {
        atMs,
        energyJByDevice: new Map(chosen.map(({ key, sample }) => [key, energyNowJ(sample, key)])),
        powerW: chosen.reduce<number | null>((sum, { sample }) => (sum === null || sample.power_mw == null ? null : sum + sample.power_mw / 1000), 0),
      };
    },
    close: async () => {
      await Promise.all(agents.map(({ pool }) => pool.destroy()));
    },
  };
}

/** What the devices took between two readings. `unknown` where a counter fell (driver reload) or a device came or went. */
export function energyBetween(start: EnergyReading, end: EnergyReading): EnergyUse {
  let energyJ = 0;
  for (const [key, startJ] of start.energyJByDevice) {
    const endJ = end.energyJByDevice.get(key);
    if (endJ === undefined) return { kind: 'unknown', why: `device ${key} went away` };
    if (endJ < startJ) return { kind: 'unknown', why: `the energy counter of ${key} fell from ${startJ} to ${endJ} J` };
    energyJ += endJ - startJ;
  }
  return { kind: 'measured', energyJ, windowS: (end.atMs - start.atMs) / 1000 };
}

function energyNowJ(sample: Sample, key: string): number {
  const { energy_mj: energyMj, energy_age_ms: ageMs, power_mw: powerMw, error } = sample;
  if (error != null) throw new AgentError(`agent: device ${key} cannot be read: ${error}`);
  if (energyMj == null) throw new AgentError(`agent: device ${key} tells no energy (energy_mj is null); name others with --devices`);
  if (ageMs != null && ageMs > ENERGY_AGE_MAX_MS) throw new AgentError(`agent: the energy counter of ${key} has not ticked for ${ageMs} ms, want at most ${ENERGY_AGE_MAX_MS}; is its driver or emulator alive?`);
  // Where age or power is not told the counter stands as it is, short of at most one tick.
  return (energyMj + ((powerMw ?? 0) * (ageMs ?? 0)) / 1000) / 1000;
}

async function readSamples(pool: Pool, socketPath: string): Promise<readonly Sample[]> {
  let text = '';
  try {
    const { statusCode, body } = await pool.request({ path: '/v1/samples', method: 'GET' });
    for await (const chunk of body) {
      text += String(chunk);
      if (text.length > AGENT_BODY_BYTES_MAX) throw new AgentError(`agent ${socketPath}: answer of more than ${AGENT_BODY_BYTES_MAX} bytes`);
    }
    if (statusCode !== 200) throw new AgentError(`agent ${socketPath}: GET /v1/samples answered ${statusCode}: ${text.slice(0, 200)}`);
  } catch (cause) {
    if (cause instanceof AgentError) throw cause;
    const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
    const wayOut = code === 'ENOENT' || code === 'ECONNREFUSED' ? '; is paceline-agent running?' : code === 'EACCES' ? '; this user may not open the socket' : '';
    throw new AgentError(`agent ${socketPath}: ${code}${wayOut}`, { cause });
  }
  try {
    return Samples.parse(JSON.parse(text)).samples;
  } catch (cause) {
    throw new AgentError(`agent ${socketPath}: GET /v1/samples answered what is no list of samples: ${text.slice(0, 120)}`, { cause });
  }
}
