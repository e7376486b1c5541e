// Replicas without a profile: what they are begun with, from the configuration and from what their agents say of the devices.
import { type DeviceFacts, askDeviceFacts } from './agent/device-facts.ts';
import { startingProfile } from './cold-start/starting-profile.ts';
import { type Config, isOneGroup, type ReplicaConfig } from './config.ts';
import { ConfigError } from './config/config-problems.ts';
import type { ReplicaId } from './core/job.ts';
import { createLearnedModel, type LearnedModel } from './core/learned-model.ts';

/** Where nobody says: a middling board. Only proportions of it count before its counters are read. */
const POWER_LIMIT_W = 400;

/** Asks the agents of all replicas of which the configuration says to learn, but not from which clocks. Throws `ConfigError`. */
export async function askFacts({ replicas, agents }: Pick<Config, 'replicas' | 'agents'>): Promise<ReadonlyMap<ReplicaId, DeviceFacts>> {
  const facts = new Map<ReplicaId, DeviceFacts>();
  const problems: string[] = [];
  await Promise.all(
    replicas.map(async ({ id, learn, agent, devices }) => {
      if (learn === null || learn.clocksMhz !== null) return;
      const node = agents.find(({ name }) => name === agent);
      if (node === undefined || !isOneGroup(devices) || devices.length === 0) {
        problems.push(`replicas: '${id}' is to be learnt, but nobody says which clocks there are: give it devices and an agent, or profile.learn.clocksMhz`);
        return;
      }
      try {
        facts.set(id, await askDeviceFacts(node.address, devices));
      } catch (error) {
        problems.push(`replicas: '${id}' is to be learnt, and its agent was asked which clocks there are: ${error instanceof Error ? error.message : String(error)}. With profile.learn.clocksMhz nobody need be asked`);
      }
    }),
  );
  if (problems.length > 0) throw new ConfigError(problems);
  return facts;
}

/** Those that are alike in what is known of them and in what they serve learn together. Throws `ConfigError`. */
export function createLearners(facts: ReadonlyMap<ReplicaId, DeviceFacts>): (replica: ReplicaConfig) => LearnedModel | null {
  const learners = new Map<string, LearnedModel>();
  return ({ id, learn, models, devices }) => {
    if (learn === null) return null;
    const known = facts.get(id);
    const clocksMhz = learn.clocksMhz ?? known?.clocksMhz;
    if (clocksMhz === undefined) throw new ConfigError([`replicas: '${id}' is to be learnt; agents are asked for clocks at the start only: give it profile.learn.clocksMhz, or restart`]);
    if (!isOneGroup(devices)) throw new ConfigError([`replicas: '${id}' is to be learnt, and prefills and decodes on devices of their own: such a server wants a profile`]);
    const told = { name: 'learned while serving', model: [...models.values()].join(', '), engine: 'unknown', device: known?.name ?? 'unknown', devices: Math.max(1, devices.length), clocksMhz, powerLimitW: learn.powerLimitW ?? known?.powerLimitW ?? POWER_LIMIT_W, serving: learn.serving };
    const key = JSON.stringify(told);
    const learner = learners.get(key) ?? createLearnedModel(startingProfile(told));
    learners.set(key, learner);
    return learner;
  };
}
