// What power budgets and energy prices stand at, as metrics: filled anew at every scrape.
import type { Registry } from './registry.ts';

export interface PowerReadings {
  readonly budgets: readonly {
    readonly name: string;
    readonly watts: number | null;
    readonly allottedW: number | null;
    readonly drawnW: number | null;
    readonly breachS: number | null;
    readonly staleS: number | null;
  }[];
  readonly prices: { readonly now: number | null; readonly staleS: number } | null;
}

export function createPowerMetrics(registry: Registry): { update(readings: PowerReadings): void } {
  const watts = registry.gauge({ name: 'paceline_power_budget_watts', help: 'What the replicas under a power budget may draw now; absent where that is not limited.', labels: ['budget'] });
  const allotted = registry.gauge({ name: 'paceline_power_budget_allotted_watts', help: 'What of it is allotted to replicas.', labels: ['budget'] });
  const drawn = registry.gauge({ name: 'paceline_power_budget_drawn_watts', help: 'What its replicas draw; absent where nobody meters it.', labels: ['budget'] });
  const breach = registry.counter({ name: 'paceline_power_budget_breach_seconds_total', help: 'For how long more was drawn than the budget allows, looked at every second; absent where nobody meters it.', labels: ['budget'] });
  const stale = registry.gauge({ name: 'paceline_power_signal_stale_seconds', help: 'For how long the last good series of a budget, or of prices, has been kept although it has run out or a newer one cannot be had; 0: it is as it should be.', labels: ['signal'] });
  const price = registry.gauge({ name: 'paceline_energy_price', help: 'What energy costs now, in the unit of its series; absent while nothing is known.' });
  return {
    update({ budgets, prices }) {
      for (const gauge of [watts, allotted, drawn, stale, price]) gauge.clear();
      for (const { name, watts: limitW, allottedW, drawnW, breachS, staleS } of budgets) {
        if (limitW !== null) watts.set([name], limitW);
        if (allottedW !== null) allotted.set([name], allottedW);
        if (drawnW !== null) drawn.set([name], drawnW);
        if (breachS !== null) breach.total([name], breachS);
        if (staleS !== null) stale.set([`budget ${name}`], staleS);
      }
      if (prices === null) return;
      stale.set(['prices'], prices.staleS);
      if (prices.now !== null) price.set([], prices.now);
    },
  };
}
