// Energy counters from dcgm-exporter's Prometheus page, in the form in which agents tell theirs. DCGM collects every 30 s unless told
// otherwise (`--collect-interval`, ms), so a counter is that old; it is carried forward, from when it was seen to change, with its power.
import { Pool } from 'undici';
import { AgentError } from '../agent/connection.ts';

/** Of one device. `counterMj` is `null` where the exporter has no energy field; then `powerW` is all there is. */
export interface DcgmReading {
  readonly counterMj: number | null;
  readonly powerW: number | null;
  /** `gpu`, a number of its host: another name of the device. */
  readonly index: string;
}

export interface DcgmSample {
  readonly counterMj: number | null;
  readonly energyJ: number | null;
  readonly powerW: number | null;
  readonly index: string;
}

export interface DcgmCounters {
  /** By UUID. Throws `AgentError`. */
  read(): Promise<ReadonlyMap<string, DcgmSample>>;
  close(): Promise<void>;
}

const ENERGY = 'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION';
const POWER = 'DCGM_FI_DEV_POWER_USAGE';
/** Four times the exporter's default: a device that draws no energy for so long is not there. */
const AGE_MS_MAX = 120_000;
const ANSWER_MS_MAX = 5_000;
/** A node of 16 devices with all fields is some 200 KB. */
const PAGE_BYTES_MAX = 16 * 1024 * 1024;

export function createDcgmCounters(url: string, nowMs: () => number): DcgmCounters {
  const { origin, pathname } = new URL(url);
  const pool = new Pool(origin, { connections: 1, headersTimeout: ANSWER_MS_MAX, bodyTimeout: ANSWER_MS_MAX, connect: { timeout: ANSWER_MS_MAX } });
  const changed = new Map<string, { readonly counterMj: number; readonly atMs: number }>();

  return {
    read: async () => {
      const readings = parseDcgmPage(await pageText(pool, url, pathname === '/' ? '/metrics' : pathname));
      if (readings.size === 0) throw new AgentError(`${url}: has neither ${ENERGY} nor ${POWER}; is it dcgm-exporter's page, and are they in its list of fields?`, null);
      const atMs = nowMs();
      return new Map([...readings].map(([uuid, { counterMj, powerW, index }]): [string, DcgmSample] => {
        if (counterMj === null) return [uuid, { counterMj, energyJ: null, powerW, index }];
        const before = changed.get(uuid);
        const since = before?.counterMj === counterMj ? before : { counterMj, atMs };
        changed.set(uuid, since);
        const ageMs = atMs - since.atMs;
        if (ageMs > AGE_MS_MAX) throw new AgentError(`${url}: the energy counter of ${uuid} has not ticked for ${Math.round(ageMs / 1000)} s`, null);
        return [uuid, { counterMj, energyJ: (counterMj + (powerW ?? 0) * ageMs) / 1000, powerW, index }];
      }));
    },
    close: () => pool.destroy(),
  };
}

/** Of each device by its UUID. With MIG the exporter repeats the device's fields for each instance: they are one device's all the same. */
export function parseDcgmPage(text: string): ReadonlyMap<string, DcgmReading> {
  const readings = new Map<string, DcgmReading>();
  for (const line of text.split('\n')) {
    const [, name, labels = '', value = ''] = /^(DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION|DCGM_FI_DEV_POWER_USAGE)\{(.*)\}\s+(\S+)/.exec(line) ?? [];
    if (name === undefined) continue;
    const index = /(?:^|,)gpu="([^"]*)"/.exec(labels)?.[1] ?? '';
    const uuid = /(?:^|,)UUID="([^"]*)"/.exec(labels)?.[1] ?? index;
    const number = Number(value);
    // DCGM writes blank values as huge numbers, and dcgm-exporter leaves most of them out.
    if (uuid === '' || !Number.isFinite(number) || number < 0 || number >= 2 ** 53) continue;
    const known = readings.get(uuid) ?? { counterMj: null, powerW: null, index };
    readings.set(uuid, name === ENERGY ? { ...known, counterMj: known.counterMj ?? number } : { ...known, powerW: known.powerW ?? number });
  }
  return readings;
}

async function pageText(pool: Pool, url: string, path: string): Promise<string> {
  try {
    const { statusCode, body } = await pool.request({ path, method: 'GET' });
    let text = '';
    for await (const chunk of body) {
      text += String(chunk);
      if (text.length > PAGE_BYTES_MAX) throw new AgentError(`${url}: a page of more than ${PAGE_BYTES_MAX} bytes`, null);
    }
    if (statusCode !== 200) throw new AgentError(`${url}: GET ${path} answered ${statusCode}`, null);
    return text;
  } catch (cause) {
    if (cause instanceof AgentError) throw cause;
    throw new AgentError(`${url}: cannot be read (${(cause as NodeJS.ErrnoException).code ?? String(cause)}); is dcgm-exporter running there?`, null, { cause });
  }
}
