// The devices' own counters under OpenTelemetry's names for hardware, and the accounts of energy by tenant, model and class, and
// by replica: on the page for Prometheus, and to the operator's SDK where there is one.
import type { Meter, ObservableResult } from '@opentelemetry/api';
import type { EnergyRow } from '../core/energy-book.ts';
import type { ReplicaEnergy } from '../core/energy-ledger.ts';
import type { ReplicaId } from '../core/job.ts';
import type { Registry } from './registry.ts';

/** As its counter stood when it was last read. */
export interface DeviceReading {
  /** Of its node. */
  readonly agent: string;
  readonly device: string;
  readonly energyJ: number;
  /** `null` where it does not say. */
  readonly powerW: number | null;
}

export interface EnergyReadings {
  readonly devices: readonly DeviceReading[];
  readonly rows: readonly EnergyRow[];
  readonly replicas: readonly ({ readonly replicaId: ReplicaId } & ReplicaEnergy)[];
}

export interface EnergyMetrics {
  /** Before the page is rendered. */
  update(now: EnergyReadings): void;
}

const HARDWARE_LABELS = ['hw_id', 'hw_type', 'agent'];
const ACCOUNT_LABELS = ['tenant', 'model', 'slo_class'];

export function createEnergyMetrics(registry: Registry): EnergyMetrics {
  const deviceEnergy = registry.counter({ name: 'hw_energy_joules_total', help: 'What each GPU has used, by its own counter.', labels: HARDWARE_LABELS });
  const devicePower = registry.gauge({ name: 'hw_power_watts', help: 'What each GPU took at the last reading.', labels: HARDWARE_LABELS });
  const accounts = registry.counter({ name: 'paceline_energy_joules_total', help: 'Energy of requests, apportioned: an estimate. By whether counters told it (metered) or the profile (modelled); what counters tell later moves from modelled to metered.', labels: [...ACCOUNT_LABELS, 'source'] });
  const accountTokens = registry.counter({ name: 'paceline_energy_output_tokens_total', help: 'Output tokens of the requests whose energy paceline_energy_joules_total has.', labels: ACCOUNT_LABELS });
  const maximumClock = registry.counter({ name: 'paceline_replica_maximum_clock_joules_total', help: 'Counterfactual by the profile: the same work and idling at the fastest point.', labels: ['replica'] });
  const replicas = registry.counter({ name: 'paceline_replica_energy_joules_total', help: "Of each replica's devices, by what it went to: requests, idle, others (streams that are not this gateway's), unapportioned (told too late to say).", labels: ['replica', 'part'] });
  const metered = registry.gauge({ name: 'paceline_replica_energy_source', help: "1 for where a replica's energy is known from: metered, partly-metered or modelled.", labels: ['replica', 'source'] });

  return {
    update: (now) => {
      for (const metric of [deviceEnergy, devicePower, metered]) metric.clear();
      for (const { agent, device, energyJ, powerW } of now.devices) {
        deviceEnergy.total([device, 'gpu', agent], energyJ);
        if (powerW !== null) devicePower.set([device, 'gpu', agent], powerW);
      }
      accounts.refill(now.rows.flatMap((row) => [[[...accountOf(row), 'metered'], row.meteredJ], [[...accountOf(row), 'modelled'], row.modelledJ]] as const));
      accountTokens.refill(now.rows.map((row) => [accountOf(row), row.outputTokens]));
      replicas.refill(now.replicas.flatMap(({ replicaId, requests, idle, othersJ, unapportionedJ }) => [
        [[replicaId, 'requests'], requests.meteredJ + requests.modelledJ],
        [[replicaId, 'idle'], idle.meteredJ + idle.modelledJ],
        [[replicaId, 'others'], othersJ],
        [[replicaId, 'unapportioned'], unapportionedJ],
      ] as const));
      maximumClock.refill(now.replicas.map((replica) => [[replica.replicaId], replica.maximumClock.requestsJ + replica.maximumClock.idleJ]));
      for (const { replicaId, source } of now.replicas) metered.set([replicaId, source], 1);
    },
  };
}

/** To the SDK whenever it asks, the last time when the process ends: after the gateway has closed. */
export function observeEnergy(meter: Meter, read: () => EnergyReadings): void {
  const energy = meter.createObservableCounter('hw.energy', { unit: 'J', description: 'What each GPU has used, by its own counter.' });
  const power = meter.createObservableGauge('hw.power', { unit: 'W', description: 'What each GPU took at the last reading.' });
  const accounts = meter.createObservableCounter('paceline.energy', { unit: 'J', description: 'Energy of requests, apportioned: an estimate.' });
  const most = new Map<string, number>();

  const ofEnergy = (result: ObservableResult): void => {
    for (const device of read().devices) result.observe(device.energyJ, attributesOf(device));
  };
  const ofPower = (result: ObservableResult): void => {
    for (const device of read().devices) if (device.powerW !== null) result.observe(device.powerW, attributesOf(device));
  };
  const ofAccounts = (result: ObservableResult): void => {
    for (const row of read().rows) {
      for (const source of ['metered', 'modelled'] as const) {
        // As on the page: what is taken back is taken from what comes next.
        const key = [...accountOf(row), source].join('\n');
        const energyJ = Math.max(most.get(key) ?? 0, source === 'metered' ? row.meteredJ : row.modelledJ);
        most.set(key, energyJ);
        result.observe(energyJ, { 'paceline.tenant': row.tenant, 'gen_ai.request.model': row.model, 'paceline.slo.class': row.sloClass, 'paceline.energy.source': source });
      }
    }
  };
  energy.addCallback(ofEnergy);
  power.addCallback(ofPower);
  accounts.addCallback(ofAccounts);
}

function attributesOf({ agent, device }: DeviceReading): Record<string, string> {
  return { 'hw.id': device, 'hw.type': 'gpu', 'paceline.agent': agent };
}

function accountOf({ tenant, model, sloClass }: EnergyRow): [string, string, string] {
  return [tenant, model, sloClass];
}
