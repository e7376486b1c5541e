// Profiles that are wrong in a way that is known: what a planner believes while the machines follow the right one.
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import type { Profile } from '../../src/frontier/profile.ts';

/** Factors of believed over true time and power, `fast` at the fastest point and `slow` at the slowest, even steps between them. */
export interface Distortion {
  readonly time: { readonly fast: number; readonly slow: number };
  readonly power: { readonly fast: number; readonly slow: number };
}

const RIGHT = { fast: 1, slow: 1 };

/** `curved`: right at the fastest point, and the further off the slower a point is. */
export const WRONG_BELIEFS: Readonly<Record<string, Distortion>> = {
  right: { time: RIGHT, power: RIGHT },
  'time +20 %': { time: { fast: 1.2, slow: 1.2 }, power: RIGHT },
  'time -20 %': { time: { fast: 0.8, slow: 0.8 }, power: RIGHT },
  'power +15 %': { time: RIGHT, power: { fast: 1.15, slow: 1.15 } },
  'power -15 %': { time: RIGHT, power: { fast: 0.85, slow: 0.85 } },
  'time curved up': { time: { fast: 1, slow: 1.25 }, power: RIGHT },
  'time curved down': { time: { fast: 1, slow: 0.8 }, power: RIGHT },
  'power curved up': { time: RIGHT, power: { fast: 1, slow: 1.4 } },
  'power curved down': { time: RIGHT, power: { fast: 1, slow: 0.7 } },
};

export function distorted(profile: Profile, { time, power }: Distortion): Profile {
  const model = createPerformanceModel(profile);
  const at = (factor: Distortion['time'], point: string): number => {
    const share = (model.speedRank[model.points.findIndex(({ id }) => id === point)] as number) / Math.max(1, model.points.length - 1);
    return factor.fast + share * (factor.slow - factor.fast);
  };
  const row = <Row extends { readonly point: string; readonly timeMs: number; readonly energyJ: number }>(each: Row): Row => ({ ...each, timeMs: each.timeMs * at(time, each.point), energyJ: each.energyJ * at(time, each.point) * at(power, each.point) });
  return { ...profile, points: profile.points.map((point) => ({ ...point, idlePowerW: point.idlePowerW * at(power, point.id) })), prefill: profile.prefill.map(row), decode: profile.decode.map(row) };
}
