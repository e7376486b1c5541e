// npm run -s bench:overload: what becomes of deadlines when twice as much comes as can be served, with admission and without, on
// virtual time. See README.md.
//
//   node bench/overload/overload.ts [--profile NAME] [--replicas N] [--seconds N] [--times X] [--truth-time X] [--seed N] [--json]
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { loadProfile } from '../../src/profile-file.ts';
import { numberOf, refusing } from '../energy/options.ts';
import { capacityPerS, type Fleet, play, type Played, type TenantLoad } from './scenario.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const CHAT = { ttftMs: 1500, tpotMs: 50 };
const TARGET = 0.99;

/** Each wants more than its share of what there is: offered is not in proportion to the weights. */
const TENANTS = [
  { tenant: 'bronze', weight: 1, offered: 0.19 },
  { tenant: 'silver', weight: 2, offered: 0.33 },
  { tenant: 'gold', weight: 3, offered: 0.48 },
];

await refusing(async () => {
  const { values } = parseArgs({
    options: {
      profile: { type: 'string', default: 'llama-3.1-70b.h100-tp4' },
      replicas: { type: 'string', default: '4' },
      seconds: { type: 'string', default: '400' },
      times: { type: 'string', default: '2' },
      'truth-time': { type: 'string', default: '1' },
      seed: { type: 'string', default: '1' },
      json: { type: 'boolean', default: false },
    },
  });
  const profile = loadProfile(resolve(ROOT, `config/profiles/${values.profile}.json`));
  const fleet: Fleet = {
    profile,
    model: createPerformanceModel(profile),
    replicas: numberOf('replicas', values.replicas, { least: 1, most: 64, whole: true }),
    truthTime: numberOf('truth-time', values['truth-time'], { least: 0.5, most: 2 }),
    seed: numberOf('seed', values.seed, { least: 0, most: 1_000_000, whole: true }),
  };
  const lengthS = numberOf('seconds', values.seconds, { least: 30, most: 7_200 });
  const times = numberOf('times', values.times, { least: 1, most: 10 });
  const capacity = capacityPerS(fleet, CHAT, { target: TARGET, lengthS: 240 });
  const ratePerS = times * capacity;
  const tenants = (infeasible: TenantLoad['infeasible']): TenantLoad[] => TENANTS.map(({ tenant, weight, offered }) => ({ tenant, weight, infeasible, slo: CHAT, ratePerS: offered * ratePerS, fromS: 0, untilS: lengthS }));
  const admission = play(fleet, tenants('refuse'));
  const withoutAdmission = play(fleet, tenants('best-effort'));
  const burst = burstsOf(fleet, capacity);
  const result = { profile: values.profile, replicas: fleet.replicas, truthTime: fleet.truthTime, seed: fleet.seed, times, capacityPerS: capacity, overloadAdmittedAttainment: admission.attainment, shareErrorPct: shareErrorPct(admission), admission, withoutAdmission, burst };
  process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : text(result));
});

interface Bursts {
  /** The steady tenant's part of its requests that were met, by what the other one does for 20 seconds. */
  readonly steadyMetOfOffered: Readonly<Record<'no burst' | 'burst, refused where late' | 'burst, best effort' | 'burst without deadlines', number>>;
}

/** Two tenants of one weight at 60 % of the capacity together; then one of them sends three times the capacity for 20 s. */
function burstsOf(fleet: Fleet, capacity: number): Bursts {
  const steady: TenantLoad = { tenant: 'steady', weight: 1, infeasible: 'refuse', slo: CHAT, ratePerS: 0.3 * capacity, fromS: 0, untilS: 120 };
  const other = (over: Partial<TenantLoad>, burst: boolean): TenantLoad[] => {
    const load: TenantLoad = { ...steady, tenant: 'bursty', ...over };
    return burst ? [load, { ...load, ratePerS: 3 * capacity, fromS: 40, untilS: 60 }] : [load];
  };
  const metOf = (loads: readonly TenantLoad[]): number => play(fleet, [steady, ...loads]).tenants.find(({ tenant }) => tenant === 'steady')?.metOfOffered ?? 0;
  return {
    steadyMetOfOffered: {
      'no burst': metOf(other({}, false)),
      'burst, refused where late': metOf(other({}, true)),
      'burst, best effort': metOf(other({ infeasible: 'best-effort' }, true)),
      'burst without deadlines': metOf(other({ infeasible: 'best-effort', slo: {} }, true)),
    },
  };
}

/** The largest deviation of a tenant's part of the goodput from its part of the weights, in percent of the latter. */
function shareErrorPct({ tenants }: Played): number {
  const goodput = tenants.reduce((sum, { goodputTokensPerS }) => sum + goodputTokensPerS, 0);
  const weights = tenants.reduce((sum, { weight }) => sum + weight, 0);
  return Math.max(...tenants.map(({ goodputTokensPerS, weight }) => 100 * Math.abs((goodputTokensPerS * weights) / (goodput * weight) - 1)));
}

function text({ profile, replicas, truthTime, times, capacityPerS: capacity, admission, withoutAdmission, burst, shareErrorPct: error }: { profile: string; replicas: number; truthTime: number; times: number; capacityPerS: number; admission: Played; withoutAdmission: Played; burst: Bursts; shareErrorPct: number }): string {
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
  const row = (name: string, { offered, admitted, attainment, goodputPerS, usefulShare, longestS, joulesPerOutputToken }: Played): string =>
    `${name.padEnd(18)} ${String(offered).padStart(8)} ${String(admitted).padStart(9)} ${percent(attainment).padStart(22)} ${goodputPerS.toFixed(1).padStart(11)} ${percent(usefulShare).padStart(16)} ${`${longestS.toFixed(0)} s`.padStart(8)} ${joulesPerOutputToken.toFixed(2).padStart(8)}`;
  const weights = admission.tenants.reduce((sum, { weight }) => sum + weight, 0);
  const goodput = admission.tenants.reduce((sum, { goodputTokensPerS }) => sum + goodputTokensPerS, 0);
  return [
    `${profile}, ${replicas} replicas (emulated; devices take ${truthTime} x the profile's time). Every request wants its first token in ${CHAT.ttftMs} ms and one per ${CHAT.tpotMs} ms.`,
    `Capacity, ${percent(TARGET)} met and none refused: ${capacity.toFixed(1)} requests/s. Offered: ${times} x that.`,
    '',
    'admission           offered  admitted  attainment of admitted  met per s  of the bound     longest  J/token',
    row('refuse', admission),
    row('best effort', withoutAdmission),
    '',
    'tenant   weight  part of the weights  of what was offered  of the tokens that were in time',
    ...admission.tenants.map(({ tenant, weight, offered, goodputTokensPerS }) => `${tenant.padEnd(8)} ${String(weight).padStart(6)} ${percent(weight / weights).padStart(20)} ${percent(offered / admission.offered).padStart(20)} ${percent(goodputTokensPerS / goodput).padStart(32)}`),
    `largest deviation from the weights: ${error.toFixed(1)} %`,
    '',
    "a steady tenant's requests that were met, while another one of the same weight sends three times the capacity for 20 s:",
    ...Object.entries(burst.steadyMetOfOffered).map(([name, met]) => `  ${name.padEnd(28)} ${percent(met)}`),
    '',
  ].join('\n');
}
