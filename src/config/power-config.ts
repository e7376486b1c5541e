// The `power` of the configuration: which budgets there are over which replicas, and where series of watts and prices come from.
import { resolve } from 'node:path';
import type { BudgetConfig, PowerConfig, SignalConfig } from '../config.ts';
import type { ReplicaId } from '../core/job.ts';
import type { Path, Places } from './config-problems.ts';
import type { RawConfig } from './config-schema.ts';

type RawPower = NonNullable<RawConfig['power']>;
type RawSignal = NonNullable<RawPower['prices']>;
type RawBudget = RawPower['budgets'][number];

export function powerOf(raw: RawPower | undefined, directory: string): PowerConfig {
  return {
    budgets: (raw?.budgets ?? []).map((budget) => budgetOf(budget, directory)),
    prices: raw?.prices === undefined ? null : signalOf(raw.prices, directory),
  };
}

function budgetOf({ name, watts, schedule, over }: RawBudget, directory: string): BudgetConfig {
  return {
    name,
    watts: schedule === undefined ? { kind: 'fixed', watts: watts ?? 0 } : { kind: 'schedule', signal: signalOf(schedule, directory), fallbackW: schedule.onStale === 'hold' ? null : schedule.onStale.watts },
    over: over === 'fleet' ? { kind: 'fleet' } : 'replicas' in over ? { kind: 'replicas', replicaIds: over.replicas as ReplicaId[] } : { kind: 'agents', agents: over.agents },
  };
}

function signalOf({ file, url, tokenFile, everyMs, timeoutMs, staleAfterMs }: RawSignal, directory: string): SignalConfig {
  return {
    place: file !== undefined ? { kind: 'file', path: resolve(directory, file) } : { kind: 'http', url: url ?? '', tokenPath: tokenFile === undefined ? null : resolve(directory, tokenFile), everyMs: everyMs ?? 60_000, timeoutMs: timeoutMs ?? 10_000 },
    staleAfterMs,
  };
}

/** `agentNames`: those that the file has; `agentOf`: of a replica by its id, `null` where it has none. */
export function powerProblems({ power, replicas }: RawConfig, places: Places, agents: { readonly names: readonly string[]; readonly of: (replicaId: string) => string | null }): string[] {
  if (power === undefined) return [];
  const problems: string[] = [];
  const ids = new Set(replicas.map(({ id }) => id));
  const seen = new Set<string>();
  for (const [index, { name, watts, schedule, over }] of power.budgets.entries()) {
    const at = ['power', 'budgets', index] as const;
    if (seen.has(name)) problems.push(places.at([...at, 'name'], `the name '${name}' is already used`));
    seen.add(name);
    if ((watts === undefined) === (schedule === undefined)) problems.push(places.at(at, `got ${watts === undefined ? 'neither' : 'both'}, want either watts or a schedule`));
    if (schedule !== undefined) problems.push(...signalProblems(schedule, [...at, 'schedule'], places));
    if (over === 'fleet') continue;
    if ('replicas' in over) over.replicas.forEach((id, place) => ids.has(id) || problems.push(places.at([...at, 'over', 'replicas', place], `no replica '${id}'; there are: ${[...ids].join(', ')}`)));
    else {
      over.agents.forEach((agent, place) => {
        if (!agents.names.includes(agent)) problems.push(places.at([...at, 'over', 'agents', place], `no agent '${agent}'; there are: ${agents.names.join(', ') || 'none'}`));
        else if (!replicas.some(({ id }) => agents.of(id) === agent)) problems.push(places.at([...at, 'over', 'agents', place], `no replica is on the agent '${agent}'; nothing would be under this budget`));
      });
    }
  }
  if (power.prices !== undefined) problems.push(...signalProblems(power.prices, ['power', 'prices'], places));
  return problems;
}

function signalProblems(signal: RawSignal, at: Path, places: Places): string[] {
  const { file, url } = signal;
  if ((file === undefined) === (url === undefined)) return [places.at(at, `got ${file === undefined ? 'neither' : 'both'}, want either file or url`)];
  if (file === undefined) return [];
  return (['tokenFile', 'everyMs', 'timeoutMs'] as const).filter((key) => signal[key] !== undefined).map((key) => places.atKey([...at, key], 'only with a url; a file is looked at every second'));
}
