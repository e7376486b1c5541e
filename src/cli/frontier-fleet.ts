// `paceline frontier fleet`: which fleet for this load? Profiles of several configurations on so many devices, the cheapest first.
import type { AwakeLoad } from '../core/awake-plan.ts';
import { FLEETS_MAX, type FleetPart, type FleetPlan, planKnobs } from '../core/knob-plan.ts';
import { configurationsOf, settingsName } from '../frontier/configurations.ts';
import { tableOf } from '../simulator/format-table.ts';
import { UsageError } from './command.ts';
import { digits, print, profileOf } from './frontier-files.ts';
import { parseSleepCosts, withSleep } from './sleep-option.ts';

export interface FleetQuestion {
  readonly devices: number;
  readonly ratePerS: number;
  /** What there must be room for, over the rate. */
  readonly peak: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly ttftMs: number;
  readonly tpotMs: number;
  readonly batchTokens: string | undefined;
  readonly sleep: string | undefined;
}

const SHOWN_MAX = 10;

/** Throws `UsageError` where the files are no profiles, or there are more fleets than can be looked at. */
export function fleet(files: readonly string[], question: FleetQuestion, json: boolean): number {
  if (files.length === 0) throw new UsageError('frontier fleet: want at least one profile: one file for each configuration, or one with several');
  const sleep = question.sleep === undefined ? undefined : parseSleepCosts('--sleep', question.sleep);
  const configurations = files.flatMap((file) => {
    const { profile } = profileOf(file).model;
    return configurationsOf(sleep === undefined ? profile : withSleep(profile, sleep, '--sleep')).map(({ settings, profile: own }) => ({ name: [profile.name, settingsName(settings)].filter((part) => part !== '').join(', '), profile: own }));
  });
  const perMs = question.ratePerS / 1_000;
  const { promptTokens, outputTokens, ttftMs, tpotMs } = question;
  const load: AwakeLoad = { arrivalsPerMs: perMs, peakPerMs: perMs * question.peak, promptTokensMean: promptTokens, prefillTokensMean: promptTokens, outputTokensMean: outputTokens, ttftMs, tpotMs };
  const plan = planKnobs({ configurations, devices: question.devices, batchTokens: batchTokensOf(question.batchTokens) }, load);
  if (plan.kind === 'too-many') throw new UsageError(`frontier fleet: ${plan.fleets} fleets could be made of these, at most ${FLEETS_MAX} are looked at; take fewer --devices, files or --batch-tokens`);
  if (json) print({ question, looked: plan.looked, fleets: plan.fleets.map(({ parts, ...rest }) => ({ ...rest, perTokenJ: perTokenJ(rest.powerW, question), parts: parts.map(shownPart) })) });
  else process.stdout.write(text(plan.fleets, plan.looked, question));
  return 0;
}

function batchTokensOf(given: string | undefined): readonly number[] {
  if (given === undefined) return [];
  return given.split(',').map((part) => {
    if (!/^\d{1,8}$/.test(part.trim()) || Number(part) < 1) throw new UsageError(`--batch-tokens: got '${given}', want whole numbers separated by commas, such as 512,2048,8192`);
    return Number(part);
  });
}

function shownPart({ name, replicas, awake, point, model, batchTokens, batchCap, perMsEach }: FleetPart) {
  return { name, replicas, awake, point: point === null ? null : (model.points[point]?.id ?? null), batchTokens, batchCap, ratePerSEach: 1_000 * perMsEach };
}

/** `null`: no token comes. */
function perTokenJ(powerW: number, { ratePerS, outputTokens }: FleetQuestion): number | null {
  const joules = powerW / (ratePerS * outputTokens);
  return Number.isFinite(joules) ? joules : null;
}

function perTokenText(powerW: number, question: FleetQuestion): string {
  const joules = perTokenJ(powerW, question);
  return joules === null ? '-' : digits(joules);
}

function text(fleets: readonly FleetPlan[], looked: number, question: FleetQuestion): string {
  const { devices, ratePerS, promptTokens, outputTokens, ttftMs, tpotMs } = question;
  const asked = `${ratePerS} requests/s of ${promptTokens} in and ${outputTokens} out, TTFT ${ttftMs} ms, TPOT ${tpotMs} ms, on at most ${devices} devices`;
  if (fleets.length === 0) return `${asked}: none of ${looked} fleets serves that.\n`;
  const rows = fleets.slice(0, SHOWN_MAX).flatMap((one) => one.parts.map((part, index) => ({ one, part: shownPart(part), isFirst: index === 0 })));
  const table = tableOf(
    [
      ['power W', ({ one, isFirst }) => (isFirst ? digits(one.powerW) : '')],
      ['J/token', ({ one, isFirst }) => (isFirst ? perTokenText(one.powerW, question) : '')],
      ['devices', ({ one, isFirst }) => (isFirst ? String(one.devices) : '')],
      ['servers', ({ part }) => `${part.replicas} x ${part.name}`],
      ['awake', ({ part }) => String(part.awake)],
      ['point', ({ part }) => part.point ?? 'parked'],
      ['batch cap', ({ part }) => String(part.batchCap)],
      ['batch tokens', ({ part }) => String(part.batchTokens)],
      ['requests/s each', ({ part }) => digits(part.ratePerSEach)],
    ],
    rows,
  );
  const more = fleets.length - SHOWN_MAX;
  return `${asked}; ${looked} fleets looked at, the cheapest first:\n\n${table}\n${more > 0 ? `\n… and ${more} more that serve it\n` : ''}`;
}
