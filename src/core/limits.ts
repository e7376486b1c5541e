// Every bound of the decision code, with its reason. Relations between them are asserted when the module is loaded.
import assert from 'node:assert/strict';

/** Jobs that may wait in our own queue unless the config says otherwise: a second of a very large fleet. */
export const QUEUED_MAX_DEFAULT = 4096;

/** (model, tenant) pairs with statistics of their own; beyond it pairs share one. Names come from clients and config alike. */
export const LEARNT_KEYS_MAX = 1000;

/** Output lengths above this are counted in the last bin: longer than any context window served today. */
export const OUTPUT_TOKENS_MAX = 1_048_576;

/** A demand outlives this many missed control periods, then lapses to default clocks by itself. */
export const HOLD_PERIODS = 5;

/** Below it timers of a busy event loop dominate; above it a late raise costs deadlines. */
export const CONTROL_PERIOD_MS = { min: 20, max: 1000, default: 100 };

/** Not lowered within this time of any change: clock changes every 50 ms have been seen to delay collectives (FITS.md). */
export const LOWER_DWELL_MS = 300;

/** Room beyond predictions for a job that is kept back on purpose: what is not known yet may come before it. */
export const LATEST_START_ROOM = { ttft: 1.15, e2e: 1.4 };

/** Two clock calls plus settling, for planning: a call takes 10–20 ms, settling 5–25 ms (FITS.md). */
export const SWITCH_ALLOWANCE_MS = 40;

/** A job without any deadline is kept back for others' sake no longer than this: somebody may be watching. */
export const PATIENCE_MS = 1_000;

/** One whose own deadline is lost gives way to those that are not, but for no longer than this. */
export const LATE_PATIENCE_MS = 10_000;

/**
 * A job waits for a cheaper moment no longer than this share of its slack: for a replica where it is `dearerRatio` times cheaper to
 * have room for it, and with at least `slackMinMs` for one that runs anyway and need not run faster.
 */
export const HOLD = { shareMax: 0.5, dearerRatio: 2, slackMinMs: 5_000 };

/**
 * Work with a slack of at least `slackMinMs`, and `slackTimes` what it takes alone, waits for an hour in which energy costs at most
 * `savingRatio` of what it costs now and the work, with the joules that it is thought to take then and now, `costRatio`, counting with `stretch` times what it takes alone, as it takes in a full batch, and never into the
 * last `marginShare` of its slack. It is looked at again after `lookMs` at the latest: prices are told anew, and others come. What has
 * waited is sent evenly over `spreadShare` of the cheap time: all at once would take faster clocks than the price makes up for. And it is
 * sent only where it adds no more than `riskShare` of what one job may put at risk: thousands come one after the other.
 */
export const MOVING = { slackMinMs: 60_000, slackTimes: 20, savingRatio: 0.95, costRatio: 0.75, stretch: 3, marginShare: 0.1, lookMs: 30_000, spreadShare: 0.8, riskShare: 0.1 };

/**
 * Where all want more than there is, a tenant may have been given this much of the fleet's time more than its share before its jobs
 * give way: within it deadlines alone order the queue. A job that is late already, or has no deadline, waits while it would cost another
 * tenant's deadlines; once it has waited for `patienceMs` only if its own tenant has had its share.
 */
export const FAIR = { aheadMs: 500, patienceMs: 30_000 };

/**
 * A server that says it is saturated gets no more than it then had for as long as it asks for, within bounds: less is no relief, and
 * a minute's retry-after must not hold jobs back from one that has long had room.
 */
export const SATURATED_MS = { min: 100, max: 30_000, unsaid: 1_000 };

/**
 * Blocks of prompts that are remembered: no more of a replica than its cache holds, and no more than a million in all, some 100 MB.
 * `holdersMax` replicas of a block are found in a fleet too large to ask each.
 */
export const PREFIX = { entriesMax: 1_048_576, entriesPerReplicaMax: 32_768, holdersMax: 4 };

/** Replicas that are weighed for one job; a plan for each takes some microseconds, and an arrival must not wait for hundreds. */
export const CANDIDATES_MAX = 16;

/**
 * Jobs of a model kept in our queue that are looked at again: at every control period, and when a job ends or begins to stream,
 * which thousands do a second in a large fleet. Half of them are the first in order, the others take turns.
 */
export const RECONSIDERED_MAX = { perPeriod: 16, perEvent: 2 };

/** A plan that meets everything is looked over again after this long, whatever happens: a server that stalls must be seen. */
export const PLAN_HOLDS_MS = 400;

/**
 * A job like one that was judged within `ageMs` goes the same way unjudged, as long as such jobs have added no more than
 * `loadShare` to what the replica has, and their prefills no more than `slackShare` of its slack: the judgement was no finer.
 */
export const ALIKE = { ageMs: 2, loadShare: 1 / 16, slackShare: 1 / 8, sizeRatio: 1.25 };

/**
 * Streams of a replica that a decision sees one by one; beyond that in at most so many groups of like ones and those that began
 * since the last survey. At half a microsecond for each stream a survey then takes one percent of the time, however many there are.
 */
export const STREAMS = { apartMax: 48, groupsMax: 32, freshMax: 32, surveyMsPerStream: 0.05 };

assert(LOWER_DWELL_MS >= 2 * SWITCH_ALLOWANCE_MS, 'a lowered clock has settled before it may be lowered again');
