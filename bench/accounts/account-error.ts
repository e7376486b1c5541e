// Real processes under load, and what the gateway's accounts of energy add up to, against counters that are read beside it.
import { setTimeout as delay } from 'node:timers/promises';
import { startFleet } from '../../src/demo/fleet.ts';
import type { EnergySnapshot } from '../../src/gateway-energy.ts';
import { createEnergyMeter, energyBetween, type EnergyReading } from '../../src/loadgen/energy-meter.ts';
import { runLoad } from '../../src/loadgen/run-load.ts';
import { makeSynthetic } from '../../src/workload/synthetic.ts';

export interface AccountErrorOptions {
  readonly profile: string;
  readonly replicas: number;
  readonly policy: string;
  readonly ratePerS: number;
  readonly durationS: number;
  readonly seed: number;
}

/** Joules are of the time from the gateway's first reading to its last. */
export interface AccountError {
  /** Of the meter, how far requests + idling + others + what could not be apportioned are off: `100 · |sum − meter| / meter`. */
  readonly accountErrorPct: number;
  /** How well the meter is known: the gateway reads it some milliseconds before or after this process does. */
  readonly meterUncertaintyPct: number;
  /** How far what tenants were charged is off what requests took of the replicas. */
  readonly rowsErrorPct: number;
  readonly requests: number;
  readonly meterJ: number;
  readonly requestsJ: number;
  readonly idleJ: number;
  readonly othersJ: number;
  readonly unapportionedJ: number;
  /** Of what requests were charged, what no counter told. */
  readonly modelledJ: number;
  readonly maximumClockJ: number;
  readonly agent: 'native' | 'stand-in';
}

/** Emulated replicas, the agent (or its stand-in), a gateway and a load generator, each a process of its own. */
export async function measureAccountError(options: AccountErrorOptions): Promise<AccountError> {
  const { durationS, seed } = options;
  let trouble: string | null = null;
  const fleet = await startFleet({ profile: options.profile, replicas: options.replicas, port: 0, onTrouble: (message) => (trouble ??= message) });
  const meter = createEnergyMeter({ sockets: [fleet.agentSocket], devices: [], nowMs: () => performance.now() });
  try {
    const { url, adminUrl } = await fleet.gateway(options.policy);
    const before = await whenRead(adminUrl, 0, meter.read);
    const workload = makeSynthetic({
      arrivals: { kind: 'poisson', ratePerS: options.ratePerS },
      durationS,
      seed,
      promptTokens: { kind: 'lognormal', meanTokens: 900, cv: 0.8 },
      outputTokens: { kind: 'lognormal', meanTokens: 120, cv: 0.7 },
    });
    await runLoad({ url, workload, classes: [{ name: 'chat', share: 1, slo: { ttftMs: 1500, tpotMs: 50 } }], seed, command: 'bench:accounts' });
    const { meterJ: atEndJ } = sumsOf((await energyAt(adminUrl)).replicas);
    const after = await whenRead(adminUrl, atEndJ, meter.read);
    if (trouble !== null) throw new Error(trouble);
    return errorOf(before, after, fleet.agent);
  } finally {
    await meter.close();
    await fleet.close();
  }
}

interface Seen {
  readonly snapshot: EnergySnapshot;
  /** Before the gateway read its counters, and after. */
  readonly earlier: EnergyReading;
  readonly later: EnergyReading;
}

/** Right after the gateway has read all counters once more, so that both have seen the same. */
async function whenRead(adminUrl: string, beyondJ: number, read: () => Promise<EnergyReading>): Promise<Seen> {
  let earlier = await read();
  for (let attempt = 0; attempt < 2_000; attempt++) {
    const snapshot = await energyAt(adminUrl);
    const metered = snapshot.replicas.every(({ source }) => source === 'metered');
    if (metered && (beyondJ === 0 || snapshot.replicas.length === 0 || sumsOf(snapshot.replicas).meterJ > beyondJ)) return { snapshot, earlier, later: await read() };
    earlier = await read();
    await delay(5);
  }
  throw new Error('the gateway did not read its meters within 20 s');
}

async function energyAt(adminUrl: string): Promise<EnergySnapshot> {
  return (await (await fetch(`${adminUrl}/paceline/energy`)).json()) as EnergySnapshot;
}

function errorOf(before: Seen, after: Seen, agent: AccountError['agent']): AccountError {
  const [most, least] = [usedBetween(before.earlier, after.later), usedBetween(before.later, after.earlier)];
  const usedJ = (most + least) / 2;
  const [from, to] = [sumsOf(before.snapshot.replicas), sumsOf(after.snapshot.replicas)];
  const of = (name: keyof Sums): number => to[name] - from[name];
  const sumJ = of('requestsJ') + of('idleJ') + of('othersJ') + of('unapportionedJ');
  const rows = after.snapshot.rows.reduce((sum, row) => ({ requests: sum.requests + row.requests, chargedJ: sum.chargedJ + row.meteredJ + row.modelledJ }), { requests: 0, chargedJ: 0 });
  return {
    accountErrorPct: (100 * Math.abs(sumJ - usedJ)) / usedJ,
    meterUncertaintyPct: (50 * (most - least)) / usedJ,
    rowsErrorPct: (100 * Math.abs(rows.chargedJ - of('requestsJ') - of('modelledJ'))) / (of('requestsJ') + of('modelledJ')),
    requests: rows.requests,
    meterJ: usedJ,
    requestsJ: of('requestsJ'),
    idleJ: of('idleJ'),
    othersJ: of('othersJ'),
    unapportionedJ: of('unapportionedJ'),
    modelledJ: of('modelledJ'),
    maximumClockJ: of('maximumClockJ'),
    agent,
  };
}

function usedBetween(from: EnergyReading, to: EnergyReading): number {
  const used = energyBetween(from, to);
  if (used.kind === 'unknown') throw new Error(used.why);
  return used.energyJ;
}

type Sums = Pick<AccountError, 'meterJ' | 'requestsJ' | 'idleJ' | 'othersJ' | 'unapportionedJ' | 'modelledJ' | 'maximumClockJ'>;

function sumsOf(replicas: EnergySnapshot['replicas']): Sums {
  const sum = { meterJ: 0, requestsJ: 0, idleJ: 0, othersJ: 0, unapportionedJ: 0, modelledJ: 0, maximumClockJ: 0 };
  for (const { meterJ, requests, idle, othersJ, unapportionedJ, maximumClock } of replicas) {
    sum.meterJ += meterJ ?? 0;
    sum.requestsJ += requests.meteredJ;
    sum.modelledJ += requests.modelledJ;
    sum.idleJ += idle.meteredJ;
    sum.othersJ += othersJ;
    sum.unapportionedJ += unapportionedJ;
    sum.maximumClockJ += maximumClock.requestsJ + maximumClock.idleJ;
  }
  return sum;
}
