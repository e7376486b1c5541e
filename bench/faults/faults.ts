// The command: what of the promises about faults, fleets and overload holds, measured over real processes.
import { cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import type { CancellationResult } from './cancellation.ts';
import { measureCancellation } from './cancellation.ts';
import type { LimitsResult } from './fleet-limits.ts';
import { measureLimits } from './fleet-limits.ts';
import type { FleetResult } from './fleet.ts';
import { measureFleet } from './fleet.ts';
import type { OverloadResult } from './overload.ts';
import { measureOverload } from './overload.ts';
import type { RedisWaitResult } from './redis-wait.ts';
import { measureRedisWait } from './redis-wait.ts';
import type { SchedulesResult } from './run-schedules.ts';
import { runSchedules } from './run-schedules.ts';

const HELP = `npm run -s bench:faults -- [options]

Real gateways, emulated model servers, agents and Redis. Six parts, all of them unless some are named; six minutes.

  --schedule      all of these processes killed, frozen and worse by a seeded schedule, while a client checks every byte it gets
  --fleet         three gateways beside one; one of three killed in mid-load; Redis frozen for ten seconds
  --redis         what a request of a tenant with limits waits while Redis is well, slow, frozen and gone
  --limits        requests, tokens and concurrency of a tenant, sent three times as much through three gateways
  --overload      twice what the fleet can serve in time, from three tenants, with admission and without
  --cancellation  how soon a client that leaves is let go of, at every endpoint in every phase

  --schedules N   how many (default 8)
  --seed S        of the first of them (default 1)
  --only K        the K-th schedule of the seed alone, told in full, and no other part
  --seconds N     of the limits' load (default 15); from 61 on the minute they are counted in moves
  --json          one JSON object on stdout, the rest on stderr
  --help          this text

Ends with 1 where a schedule violated an invariant.
`;

const PARTS = ['schedule', 'fleet', 'redis', 'limits', 'overload', 'cancellation'] as const;
const FLEET_SECONDS = 25;
const OVERLOAD_SECONDS = 120;
const ROUNDS = 3;
/** What the slowest of some hundred requests takes longer than the median in any case. */
const REQUEST_NOISE_MS = 10;

const { values } = parseArgs({
  options: {
    schedule: { type: 'boolean', default: false },
    fleet: { type: 'boolean', default: false },
    redis: { type: 'boolean', default: false },
    limits: { type: 'boolean', default: false },
    overload: { type: 'boolean', default: false },
    cancellation: { type: 'boolean', default: false },
    schedules: { type: 'string', default: '8' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string' },
    seconds: { type: 'string', default: '15' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

interface Results {
  readonly schedules: SchedulesResult | null;
  readonly fleet: FleetResult | null;
  readonly redis: RedisWaitResult | null;
  readonly limits: LimitsResult | null;
  readonly overload: OverloadResult | null;
  readonly cancellation: CancellationResult | null;
}

if (values.help) process.stdout.write(HELP);
else await main();

async function main(): Promise<void> {
  const say = (line: string): void => void (values.json ? process.stderr : process.stdout).write(`${line}\n`);
  const named = values.only === undefined ? PARTS.filter((part) => values[part]) : (['schedule'] as const);
  const wanted = new Set<(typeof PARTS)[number]>(named.length === 0 ? PARTS : named);
  const part = async <T>(name: (typeof PARTS)[number], title: string, measure: () => Promise<T>): Promise<T | null> => {
    if (!wanted.has(name)) return null;
    say(`== ${title}`);
    return measure();
  };
  const machine = `${cpus().length} x ${cpus()[0]?.model.trim()}, Node ${process.version}, load ${loadavg()[0]?.toFixed(1)} before`;
  say(machine);
  const options = { seed: wholeNumber('seed', values.seed), schedules: wholeNumber('schedules', values.schedules), only: values.only === undefined ? null : wholeNumber('only', values.only), onLine: say };
  const results: Results = {
    schedules: await part('schedule', 'fault schedules', () => runSchedules(options)),
    cancellation: await part('cancellation', 'clients that leave', () => measureCancellation({ rounds: ROUNDS })),
    fleet: await part('fleet', 'three gateways beside one', () => measureFleet({ seconds: FLEET_SECONDS, onLine: say })),
    redis: await part('redis', 'what a request waits for Redis', () => measureRedisWait()),
    limits: await part('limits', 'limits of a tenant, three gateways', () => measureLimits({ seconds: wholeNumber('seconds', values.seconds) })),
    overload: await part('overload', 'overload', () => measureOverload({ seconds: OVERLOAD_SECONDS, onLine: say })),
  };
  say(`\n${summary(results)}`);
  if (values.json) process.stdout.write(`${JSON.stringify({ machine, ...headline(results), details: results })}\n`);
  if ((results.schedules?.violations.length ?? 0) > 0) process.exitCode = 1;
}

/** The figures that are promised, by name; `null` where they were not measured. */
function headline({ schedules, fleet, redis, limits, overload, cancellation }: Results): Readonly<Record<string, number | null>> {
  return {
    schedules: schedules?.schedules ?? null,
    violations: schedules?.violations.length ?? null,
    clocksBackMsMax: schedules?.clocksBackMsMax ?? null,
    cancellationMsMax: cancellation?.worstMs ?? null,
    fleetAttainmentDiffPct: fleet?.attainmentDiffPct ?? null,
    fleetEnergyDiffPct: fleet?.energyDiffPct ?? null,
    redisFrozenFailed: fleet?.redisFrozen.failed ?? null,
    gatewayKilledLostOfOthers: fleet?.gatewayKilled.lostOfOthers ?? null,
    redisAddedMsMax: redis?.addedMsMax ?? null,
    fleetLimitErrorPct: limits?.errorPct ?? null,
    overloadAdmittedAttainment: overload?.withAdmission.attainment ?? null,
    overloadGoodputOfBest: overload?.goodputOfBest ?? null,
    overloadShareErrorPct: overload === null ? null : Math.max(...overload.withAdmission.shares.map(({ offPct }) => Math.abs(offPct))),
    overloadHung: overload?.withAdmission.hung ?? null,
  };
}

function summary(results: Results): string {
  const { schedules, fleet, redis, limits, overload, cancellation } = results;
  const lines: string[] = [];
  if (schedules !== null) {
    lines.push(`${schedules.schedules} schedules, ${schedules.faults} faults, ${schedules.requests} requests: ${schedules.violations.length} violations (target 0)`);
    lines.push(`  clocks back at default within ${schedules.clocksBackMsMax?.toFixed(0) ?? '-'} ms after their holders or their agent were killed (${schedules.clocksLowered} times)`);
  }
  if (cancellation !== null) {
    const closed = cancellation.phases.flatMap(({ closedMs }) => closedMs ?? []);
    lines.push(`${cancellation.cases} endpoints and phases that clients leave in: server let go after ${Math.max(...closed.map(({ median }) => median)).toFixed(1)} ms (worst median), ${Math.max(...closed.map(({ max }) => max)).toFixed(1)} ms (worst), its place another's after ${cancellation.worstMs.toFixed(1)} ms (worst): ${verdict(cancellation.worstMs <= cancellation.targetMs)} (target ${cancellation.targetMs} ms)`);
  }
  if (fleet !== null) {
    lines.push(`three gateways beside one: attainment ${signed(fleet.attainmentDiffPct)} points, energy ${signed(fleet.energyDiffPct)} %: ${verdict(Math.abs(fleet.attainmentDiffPct) <= 3 && Math.abs(fleet.energyDiffPct) <= 3)} (target within 3)`);
    lines.push(`  Redis frozen for ten seconds: ${fleet.redisFrozen.failed} requests lost (target 0), ${percent(fleet.redisFrozen.attainment)} in time`);
    lines.push(`  a gateway killed: ${fleet.gatewayKilled.lostOfOthers} streams of others lost (target 0), ${percent(fleet.gatewayKilled.attainmentOfOthers)} of the others in time`);
  }
  if (redis !== null) {
    lines.push(`a request of a tenant with limits waits for Redis ${redis.addedMsMax.toFixed(1)} ms at most, over the median without: ${verdict(redis.addedMsMax <= redis.targetMs + REQUEST_NOISE_MS)} (target ${redis.targetMs} ms, and ${REQUEST_NOISE_MS} for the request itself)`);
    for (const { redis: state, requests, median, max, failed } of redis.states) lines.push(`  Redis ${state}: ${requests} requests, median ${median.toFixed(2)} ms, worst ${max.toFixed(1)} ms, ${failed} failed`);
  }
  if (limits !== null) {
    const told = limits.limits.map(({ limit, most, allowed, failed }) => `${limit} ${most} of ${allowed}${failed === 0 ? '' : ` (${failed} failed)`}`).join(', ');
    lines.push(`limits of three gateways together: ${told}: off by ${limits.errorPct.toFixed(1)} %: ${verdict(limits.errorPct <= 2)} (target 2 %)`);
  }
  if (overload !== null) {
    const { withAdmission, without, goodputOfBest } = overload;
    const off = Math.max(...withAdmission.shares.map(({ offPct }) => Math.abs(offPct)));
    lines.push(`overload, 2 x capacity: ${percent(withAdmission.attainment)} of the admitted in time: ${verdict(withAdmission.attainment >= 0.99)} (target 99 %); without admission ${percent(without.attainment)}`);
    lines.push(`  goodput ${percent(goodputOfBest)} of all that the fleet gets done: ${verdict(goodputOfBest >= 0.95)} (target 95 %); shares within ${off.toFixed(1)} % of the weights: ${verdict(off <= 5)} (target 5 %); ${withAdmission.hung} hung (target 0)`);
  }
  return lines.join('\n');
}

function verdict(met: boolean): string {
  return met ? 'met' : 'MISSED';
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

function signed(value: number): string {
  return `${value >= 0 ? '+' : ''}${value.toFixed(1)}`;
}

function wholeNumber(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new Error(`--${name}: got '${text}', want a whole number from 0 on`);
  return value;
}
