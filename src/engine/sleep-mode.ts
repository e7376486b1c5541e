// The sleep mode of an emulated server, as vLLM's: weights go to the host, the cache is gone, and what comes meanwhile is parked
// until it wakes. What that takes and draws is said by the truth profile.
import { setTimeout as delay } from 'node:timers/promises';
import { wakePowerW } from '../core/sleep-worth.ts';
import type { SleepCosts } from '../frontier/profile.ts';
import type { RealTimeReplica } from './real-time.ts';

export interface SleepMode {
  /** Resolves when it sleeps; at once where it does. `abort` ends what runs, else that is waited for. */
  sleep(how: 'abort' | 'wait'): Promise<void>;
  /** Resolves when it serves again. */
  wake(): Promise<void>;
  isSleeping(): boolean;
  /** Resolves when a request may go to the engine; `false`: as many are parked as may be. */
  awake(): Promise<boolean>;
}

export interface SleepModeOptions {
  readonly replica: Pick<RealTimeReplica, 'rest' | 'stats' | 'idlePowerW' | 'clockListMhz'>;
  readonly costs: SleepCosts;
  readonly parkedMax: number;
  readonly abortAll: () => void;
}

/** How often it is looked whether the last request has ended. */
const DRAIN_POLL_MS = 5;

export function createSleepMode({ replica, costs, parkedMax, abortAll }: SleepModeOptions): SleepMode {
  let state: 'awake' | 'falling-asleep' | 'asleep' | 'waking' = 'awake';
  let parked: (() => void)[] = [];
  /** Calls are done one after the other, as the engine's core does them. */
  let last: Promise<void> = Promise.resolve();

  function after(call: () => Promise<void>): Promise<void> {
    last = last.then(call);
    return last;
  }

  return {
    sleep: (how) =>
      after(async () => {
        if (state === 'asleep') return;
        state = 'falling-asleep';
        if (how === 'abort') abortAll();
        for (let { running, waiting } = replica.stats(); running + waiting > 0; { running, waiting } = replica.stats()) await delay(DRAIN_POLL_MS);
        await delay(costs.sleepMs);
        replica.rest(costs.powerW);
        state = 'asleep';
      }),
    wake: () =>
      after(async () => {
        if (state === 'awake') return;
        state = 'waking';
        replica.rest(wakePowerW(costs, replica.idlePowerW(replica.clockListMhz.at(-1) as number)));
        await delay(costs.wakeMs);
        replica.rest(null);
        state = 'awake';
        const waiting = parked;
        parked = [];
        for (const go of waiting) go();
      }),
    isSleeping: () => state === 'asleep' || state === 'waking',
    awake: () => {
      if (state === 'awake') return Promise.resolve(true);
      if (parked.length >= parkedMax) return Promise.resolve(false);
      return new Promise((resolve) => parked.push(() => resolve(true)));
    },
  };
}
