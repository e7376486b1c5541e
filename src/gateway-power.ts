// Power budgets and energy prices, as a part of the gateway: series and operators' overrides, by the time of day, become what the
// scheduler is told at the moment it takes effect, on its own clock.
import { isDeepStrictEqual } from 'node:util';
import { type BudgetConfig, type Config, isOneGroup, type PowerConfig, type ReplicaConfig, type SignalConfig } from './config.ts';
import { ConfigError } from './config/config-problems.ts';
import type { EnergyPrice } from './core/energy-prices.ts';
import type { ReplicaId } from './core/job.ts';
import type { PowerBudget } from './core/power-budget.ts';
import type { PerformanceModel } from './frontier/performance-model.ts';
import { powerRange } from './frontier/power-limited.ts';
import { nextChangeAfter, type Series, valueAt } from './signals/series.ts';
import { openSeries, type SeriesPlace, type SeriesSource } from './signals/series-source.ts';
import { staleFor, type StandingWatts, standingWatts, type WattsFrom } from './signals/standing-watts.ts';

/** Of one budget, as the scheduler uses it. */
export interface BudgetUse {
  readonly name: string;
  readonly allottedW: number;
  /** `null` where nobody meters it. */
  readonly drawnW: number | null;
  /** Even with everything at its lowest it would be, by what is believed. */
  readonly exceeded: boolean;
  /** Not even one of what is under it can be at its slowest while the others idle, by what is believed. */
  readonly servesNothing: boolean;
}

export interface BudgetStatus {
  readonly name: string;
  /** `null`: no limit, for nothing is known of it yet. */
  readonly watts: number | null;
  readonly from: WattsFrom;
  /** When it may be another one, by what is known now. */
  readonly until: string | null;
  readonly replicas: readonly ReplicaId[];
  /** What is under it draws at least, with nothing to do at its slowest points; those without a profile are not counted. */
  readonly idleW: number;
  readonly allottedW: number | null;
  readonly drawnW: number | null;
  /** By what is believed, now: even with everything under it at its lowest more would be drawn. Says nothing of what is drawn. */
  readonly exceeded: boolean;
  /** By what is believed, now: too little for even one of what is under it to work at its slowest while the others idle, so that nothing is served until it is raised. */
  readonly servesNothing: boolean;
  /** By the counters, since the start: how long more was drawn than it allows. `null`: it has not been metered. */
  readonly breachS: number | null;
  /** `null`: it has no series. For how long that was kept although it has run out or could not be had. */
  readonly staleS: number | null;
  readonly trouble: string | null;
}

export interface PowerSnapshot {
  readonly budgets: readonly BudgetStatus[];
  /** `null`: none are configured. */
  readonly prices: { readonly now: number | null; readonly until: string | null; readonly staleS: number; readonly trouble: string | null } | null;
}

/** `stands`: so it is now; `warning`: it was done, and is hardly what was meant. */
export type OverrideOutcome = { readonly kind: 'stands'; readonly budget: BudgetStatus; readonly warning: string | null } | { readonly kind: 'unknown'; readonly names: readonly string[] } | { readonly kind: 'below-idle'; readonly idleW: number };

export interface GatewayPower {
  /** From here on the scheduler is told. */
  start(): void;
  snapshot(): PowerSnapshot;
  budget(name: string): Exclude<OverrideOutcome, { kind: 'below-idle' }>;
  /** What energy costs, `fromMs` counted from now; none: nothing is known. */
  pricesFromNow(): readonly EnergyPrice[];
  /** For so long, whatever the configuration and its series say; forgotten at a restart. */
  override(name: string, asked: { readonly watts: number; readonly forMs: number }): OverrideOutcome;
  endOverride(name: string): OverrideOutcome;
  /** Throws `ConfigError` where the next configuration cannot be taken over; what comes back does it, and cannot fail. */
  planned(next: Config, beliefs: Beliefs): () => void;
  /** Replicas came or went. */
  fleetChanged(): void;
  close(): Promise<void>;
}

/** What is believed of the replicas; of those that have a profile it says what idling draws. */
export type Beliefs = ReadonlyMap<ReplicaId, PerformanceModel>;

interface Joined {
  /** All replicas that are here. */
  readonly replicas: () => readonly ReplicaConfig[];
  readonly beliefs: () => Beliefs;
  readonly tell: { budgets(budgets: readonly PowerBudget[]): void; prices(prices: readonly EnergyPrice[]): void };
  readonly uses: () => readonly BudgetUse[];
  readonly telemetry: {
    warning(message: string): void;
    powerOverridden(name: string, watts: number | null, until: string | null): void;
  };
  /** Monotonic milliseconds, the scheduler's. */
  readonly now: () => number;
  readonly unixNowMs: () => number;
}

/** The time of day may be set anew, and what is drawn is looked at: no wait is longer. */
const LOOK_MS_MAX = 1_000;
/** By more than this the time of day has been set, and has not just drifted. */
const CLOCK_STEP_MS = 1_000;

/** Beliefs are off by some percent; what is so far above what can be drawn was meant otherwise. */
const FAR_ABOVE_PEAK = 1.5;
/** Replicas named in a line of the log. */
const IDS_SHOWN_MAX = 8;

interface Override {
  readonly watts: number;
  /** Monotonic: an hour is an hour, whatever is done to the time of day. */
  readonly endsAtMs: number;
}

/** Throws `ConfigError` where a file cannot be read, or a budget is below what its replicas draw with nothing to do. */
export function openPower(config: Pick<Config, 'power' | 'replicas' | 'planner'>, beliefs: Beliefs, joined: Joined): GatewayPower {
  const { now, unixNowMs, telemetry, tell } = joined;
  refuseBelowIdle(config, beliefs);
  let power = config.power;
  const policy = config.planner.policy.kind;
  /** By place, so that what stays in the configuration keeps what it knows. */
  let sources: readonly Source[] = [];
  let overrides = new Map<string, Override>();
  let lastW = new Map<string, number>();
  const breachMs = new Map<string, number>();
  /** Budgets that are told of as below idling. */
  const belowIdle = new Set<string>();
  /** … and as too low for anything to be served. */
  const servesNothing = new Set<string>();
  let toldBudgets: readonly PowerBudget[] = [];
  let toldPrices: { readonly source: Series | null; readonly offsetMs: number } = { source: null, offsetMs: 0 };
  let lookedAtMs = now();
  let timer: NodeJS.Timeout | undefined;
  let phase: 'opened' | 'started' | 'closed' = 'opened';
  sources = opened(config.power);

  function opened(next: PowerConfig): readonly Source[] {
    const fresh: Source[] = [];
    const all = signalsOf(next).map(({ place }) => {
      const known = [...sources, ...fresh].find((source) => isDeepStrictEqual(source.place, place));
      if (known !== undefined) return known;
      const source = { place, series: openSeries(place, { now, onSeries: () => look(), onTrouble: (why) => telemetry.warning(why === null ? `power: ${shownPlace(place)} can be read again` : `power: a series cannot be had, and the last good one stays: ${why}`) }) };
      fresh.push(source);
      return source;
    });
    // At the start and at a reload somebody is there who can mend it.
    const problems = fresh.flatMap(({ place, series }) => (place.kind === 'file' && series.series() === null ? [`power: ${series.trouble()?.why ?? place.path}`] : []));
    if (problems.length > 0) {
      for (const { series } of fresh) void series.close();
      throw new ConfigError(problems);
    }
    return [...new Set(all)];
  }

  function takeOver(next: PowerConfig, nextSources: readonly Source[]): void {
    const gone = sources.filter((source) => !nextSources.includes(source));
    sources = nextSources;
    power = next;
    const names = new Set(next.budgets.map(({ name }) => name));
    overrides = new Map([...overrides].filter(([name]) => names.has(name)));
    lastW = new Map([...lastW].filter(([name]) => names.has(name)));
    for (const name of breachMs.keys()) if (!names.has(name)) breachMs.delete(name);
    for (const { series } of gone) void series.close();
    look();
    warnUndriven(next, joined.replicas());
  }

  /** One line, at the start and whenever a configuration is taken over: somebody is there who can mend it. */
  function warnUndriven({ budgets }: PowerConfig, replicas: readonly ReplicaConfig[]): void {
    if (budgets.length === 0) return;
    if (policy !== 'paceline') return telemetry.warning(`power budgets ${budgets.map(({ name }) => name).join(', ')} are not kept: planner.policy is ${policy}, and only paceline knows of budgets`);
    const affected = budgets.flatMap((budget) => {
      const members = membersOf(budget, replicas).filter((replica) => !isDriven(replica));
      if (members.length === 0) return [];
      const peakW = peakOf(members, joined.beliefs());
      return [`${budget.name} covers ${shownIds(members)}${peakW === null ? '' : ` (together at most ${shownW(peakW)})`}`];
    });
    if (affected.length === 0) return;
    telemetry.warning(`power budgets cover replicas whose clocks nobody drives, for the configuration has no agent or no devices for them: ${affected.join('; ')}. Such a replica counts with its peak and cannot be held to less, so that a budget below the peaks is not kept`);
  }

  function sourceOf(place: SeriesPlace): SeriesSource {
    return (sources.find((source) => isDeepStrictEqual(source.place, place)) as Source).series;
  }

  function failingForMs(source: SeriesSource): number {
    const trouble = source.trouble();
    return trouble === null ? 0 : now() - trouble.sinceMs;
  }

  function standing({ name, watts }: BudgetConfig): StandingWatts {
    const unixMs = unixNowMs();
    const override = overrides.get(name);
    const source = watts.kind === 'schedule' ? sourceOf(watts.signal.place) : null;
    return standingWatts(
      {
        configured: watts.kind === 'fixed' ? watts : { kind: 'schedule', series: source?.series() ?? null, failingForMs: source === null ? 0 : failingForMs(source), staleAfterMs: watts.signal.staleAfterMs, fallbackW: watts.fallbackW },
        override: override === undefined ? null : { watts: override.watts, endsAtUnixMs: unixMs + override.endsAtMs - now() },
        lastW: lastW.get(name) ?? null,
      },
      unixMs,
    );
  }

  /** Tells what has changed, and comes back when something will. */
  function look(): void {
    if (phase !== 'started') return;
    clearTimeout(timer);
    const nowMs = now();
    for (const [name, { endsAtMs }] of overrides) if (endsAtMs <= nowMs) forgetOverride(name);
    countBreaches(nowMs);
    const stands = power.budgets.map((budget) => ({ budget, at: standing(budget), replicaIds: under(budget, joined.replicas()) }));
    for (const { budget, at, replicaIds } of stands) {
      if (at.watts !== null && at.from !== 'override') lastW.set(budget.name, at.watts);
      warnBelowIdle(budget.name, at, idleOf(replicaIds, joined.beliefs()));
    }
    const budgets = stands.flatMap(({ budget: { name }, at: { watts }, replicaIds }) => (watts === null ? [] : [{ name, watts, replicaIds }]));
    if (!isDeepStrictEqual(budgets, toldBudgets)) {
      toldBudgets = budgets;
      tell.budgets(budgets);
    }
    warnServesNothing(budgets);
    tellPrices();
    if (power.budgets.length === 0 && power.prices === null) return;
    const changesInMs = Math.min(...stands.map(({ at }) => at.changesAtUnixMs), Number.POSITIVE_INFINITY) - unixNowMs();
    timer = setTimeout(look, Math.max(1, Math.min(LOOK_MS_MAX, changesInMs)));
    timer.unref();
  }

  /** Anew where there is another series, where it ends, and where the time of day was set. */
  function tellPrices(): void {
    const offsetMs = now() - unixNowMs();
    const series = power.prices === null ? null : countingPrices(power.prices);
    if (toldPrices.source === series && (series === null || Math.abs(offsetMs - toldPrices.offsetMs) < CLOCK_STEP_MS)) return;
    toldPrices = { source: series, offsetMs };
    tell.prices(pricesOn(series, offsetMs));
  }

  /** Beyond its end nothing is known, and work waits for no hour that nobody has told of. */
  function countingPrices({ place, staleAfterMs }: SignalConfig): Series | null {
    const source = sourceOf(place);
    const series = source.series();
    return series !== null && unixNowMs() < series.endsAtUnixMs && failingForMs(source) <= staleAfterMs ? series : null;
  }

  function countBreaches(nowMs: number): void {
    const sinceMs = nowMs - lookedAtMs;
    lookedAtMs = nowMs;
    if (toldBudgets.length === 0) return;
    const drawn = new Map(joined.uses().map(({ name, drawnW }) => [name, drawnW]));
    for (const { name, watts } of toldBudgets) {
      const drawnW = drawn.get(name) ?? null;
      if (drawnW !== null) breachMs.set(name, (breachMs.get(name) ?? 0) + (drawnW > watts ? sinceMs : 0));
    }
  }

  function warnBelowIdle(name: string, { watts, from }: StandingWatts, idleW: number): void {
    if (watts === null || watts >= idleW) return void belowIdle.delete(name);
    if (belowIdle.has(name)) return;
    belowIdle.add(name);
    telemetry.warning(`power budget ${name} stands at ${shownW(watts)} (${from}), and what is under it draws ${shownW(idleW)} with nothing to do, at its slowest; it cannot be kept`);
  }

  function warnServesNothing(budgets: readonly PowerBudget[]): void {
    const tooLow = new Set(budgets.length === 0 ? [] : joined.uses().flatMap((use) => (use.servesNothing ? [use.name] : [])));
    for (const name of servesNothing) if (!tooLow.has(name)) servesNothing.delete(name);
    for (const { name, watts } of budgets) {
      if (servesNothing.has(name) || !tooLow.has(name)) continue;
      servesNothing.add(name);
      telemetry.warning(servesNothingAt(name, watts));
    }
  }

  function forgetOverride(name: string): void {
    overrides.delete(name);
    telemetry.powerOverridden(name, null, null);
  }

  function status(budget: BudgetConfig, uses: readonly BudgetUse[]): BudgetStatus {
    const { name, watts } = budget;
    const at = standing(budget);
    const replicas = under(budget, joined.replicas());
    const use = uses.find((candidate) => candidate.name === name);
    return {
      name,
      watts: at.watts,
      from: at.from,
      until: shownInstant(at.changesAtUnixMs),
      replicas,
      idleW: idleOf(replicas, joined.beliefs()),
      allottedW: use?.allottedW ?? null,
      drawnW: use?.drawnW ?? null,
      exceeded: use?.exceeded ?? false,
      servesNothing: use?.servesNothing ?? false,
      breachS: breachMs.has(name) ? (breachMs.get(name) as number) / 1_000 : null,
      staleS: watts.kind === 'fixed' ? null : at.staleMs / 1_000,
      trouble: watts.kind === 'fixed' ? null : (sourceOf(watts.signal.place).trouble()?.why ?? null),
    };
  }

  function stands(budget: BudgetConfig, warning: string | null = null): Extract<OverrideOutcome, { kind: 'stands' }> {
    return { kind: 'stands', budget: status(budget, joined.uses()), warning };
  }

  /** It serves nothing any more; or more than could ever be drawn is allowed: a slip of the unit, or the end of the limit. */
  function warningOf(budget: BudgetConfig, watts: number): string | null {
    if (servesNothing.has(budget.name)) return servesNothingAt(budget.name, watts);
    const peakW = peakOf(membersOf(budget, joined.replicas()), joined.beliefs());
    if (peakW === null || watts <= FAR_ABOVE_PEAK * peakW) return null;
    return `watts: got ${shownW(watts)}, and what is under power budget ${budget.name} draws ${shownW(peakW)} at its peak, as believed; as long as this stands nothing is limited by it`;
  }

  function found<Outcome>(name: string, act: (budget: BudgetConfig) => Outcome): Outcome | Extract<OverrideOutcome, { kind: 'unknown' }> {
    const budget = power.budgets.find((candidate) => candidate.name === name);
    return budget === undefined ? { kind: 'unknown', names: power.budgets.map((candidate) => candidate.name) } : act(budget);
  }

  return {
    start() {
      phase = 'started';
      look();
      warnUndriven(power, joined.replicas());
    },
    snapshot() {
      const uses = power.budgets.length === 0 ? [] : joined.uses();
      return { budgets: power.budgets.map((budget) => status(budget, uses)), prices: power.prices === null ? null : pricesStatus(power.prices) };
    },
    budget: (name) => found(name, stands),
    pricesFromNow: () => (power.prices === null ? [] : pricesOn(countingPrices(power.prices), -unixNowMs())),
    override: (name, { watts, forMs }) =>
      found(name, (budget): OverrideOutcome => {
        const idleW = idleOf(under(budget, joined.replicas()), joined.beliefs());
        if (watts < idleW) return { kind: 'below-idle', idleW };
        overrides.set(name, { watts, endsAtMs: now() + forMs });
        telemetry.powerOverridden(name, watts, shownInstant(unixNowMs() + forMs));
        look();
        const warning = warningOf(budget, watts);
        if (warning !== null && !servesNothing.has(name)) telemetry.warning(warning);
        return stands(budget, warning);
      }),
    endOverride: (name) =>
      found(name, (budget) => {
        if (overrides.has(name)) forgetOverride(name);
        look();
        return stands(budget);
      }),
    planned(next, beliefs) {
      refuseBelowIdle(next, beliefs);
      const nextSources = opened(next.power);
      return () => takeOver(next.power, nextSources);
    },
    fleetChanged: look,
    close: async () => {
      phase = 'closed';
      clearTimeout(timer);
      await Promise.all(sources.map(({ series }) => series.close()));
    },
  };

  function pricesStatus(signal: SignalConfig): NonNullable<PowerSnapshot['prices']> {
    const source = sourceOf(signal.place);
    const unixMs = unixNowMs();
    const series = countingPrices(signal);
    return {
      now: series === null ? null : valueAt(series, unixMs),
      until: series === null ? null : shownInstant(nextChangeAfter(series, unixMs)),
      staleS: staleFor(source.series(), failingForMs(source), unixMs) / 1_000,
      trouble: source.trouble()?.why ?? null,
    };
  }
}

interface Source {
  readonly place: SeriesPlace;
  readonly series: SeriesSource;
}

/** On another clock than that of the day. */
function pricesOn(series: Series | null, offsetMs: number): readonly EnergyPrice[] {
  return series === null ? [] : series.points.map(({ atUnixMs, value }) => ({ fromMs: atUnixMs + offsetMs, price: value }));
}

function signalsOf({ budgets, prices }: PowerConfig): readonly SignalConfig[] {
  return [...budgets.flatMap(({ watts }) => (watts.kind === 'schedule' ? [watts.signal] : [])), ...(prices === null ? [] : [prices])];
}

function under({ over }: BudgetConfig, replicas: readonly ReplicaConfig[]): readonly ReplicaId[] {
  switch (over.kind) {
    case 'fleet':
      return replicas.map(({ id }) => id);
    case 'replicas':
      return over.replicaIds;
    case 'agents':
      return replicas.filter(({ agent }) => agent !== null && over.agents.includes(agent)).map(({ id }) => id);
  }
}

function membersOf(budget: BudgetConfig, replicas: readonly ReplicaConfig[]): readonly ReplicaConfig[] {
  const ids = new Set(under(budget, replicas));
  return replicas.filter(({ id }) => ids.has(id));
}

function isDriven({ agent, devices }: ReplicaConfig): boolean {
  return agent !== null && (!isOneGroup(devices) || devices.length > 0);
}

/** `null` where there are none, or one is without a profile, of which nobody knows. */
function peakOf(replicas: readonly ReplicaConfig[], beliefs: Beliefs): number | null {
  if (replicas.length === 0) return null;
  let sumW = 0;
  for (const { id, devices, learn } of replicas) {
    const belief = beliefs.get(id);
    if (belief === undefined || learn !== null) return null;
    sumW += (isOneGroup(devices) ? 1 : 2) * powerRange(belief).peakW;
  }
  return sumW;
}

function shownIds(replicas: readonly ReplicaConfig[]): string {
  const more = replicas.length - IDS_SHOWN_MAX;
  return `${replicas.slice(0, IDS_SHOWN_MAX).map(({ id }) => id).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}

function refuseBelowIdle({ power, replicas }: Pick<Config, 'power' | 'replicas'>, beliefs: Beliefs): void {
  const known = new Map([...beliefs].filter(([id]) => replicas.some((replica) => replica.id === id && replica.learn === null)));
  const problems = power.budgets.flatMap((budget, index) => {
    const { watts } = budget;
    const replicaIds = under(budget, replicas);
    const idleW = idleOf(replicaIds, known);
    return ([['watts', watts.kind === 'fixed' ? watts.watts : null], ['schedule.onStale.watts', watts.kind === 'schedule' ? watts.fallbackW : null]] as const).flatMap(([key, givenW]) =>
      givenW === null || givenW >= idleW ? [] : [`power.budgets[${index}].${key}: got ${shownW(givenW)}, and what is under '${budget.name}' draws ${shownW(idleW)} with nothing to do, at its slowest (${replicaIds.join(', ')}); want more, or fewer replicas under it`],
    );
  });
  if (problems.length > 0) throw new ConfigError(problems);
}

/** Of those whose profile says so. */
function idleOf(replicaIds: readonly ReplicaId[], beliefs: Beliefs): number {
  return replicaIds.reduce((sum, id) => sum + Math.min(...(beliefs.get(id)?.profile.points.map(({ idlePowerW }) => idlePowerW) ?? [0])), 0);
}

function servesNothingAt(name: string, watts: number): string {
  return `watts: ${shownW(watts)} is too little for power budget ${name}: not even one of what is under it could work at its slowest clock while the others idle, as believed. Nothing under it is served, and requests wait or are refused, until it is raised`;
}

function shownPlace(place: SeriesPlace): string {
  if (place.kind === 'file') return place.path;
  const { origin, pathname } = new URL(place.url);
  return `${origin}${pathname}`;
}

function shownW(watts: number): string {
  return `${Number(watts.toFixed(1))} W`;
}

function shownInstant(unixMs: number): string | null {
  return Number.isFinite(unixMs) ? new Date(unixMs).toISOString() : null;
}
