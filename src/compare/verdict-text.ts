// A verdict in words, and numbers with their intervals, the same in the terminal and on the page. Pure.
import { unreachable } from '../core/unreachable.ts';
import type { Estimate } from '../statistics/intervals.ts';
import { ROUNDS_MIN } from '../statistics/intervals.ts';
import type { Against } from './analysis.ts';
import { ATTAINMENT_MARGIN } from './analysis.ts';

/** One sentence that may stand alone: what is claimed, and what is not. */
export function verdictText({ arm, base, energyRatio, meanEnergyRatio, attainmentDifference, verdict }: Against): string {
  const energy = energyRatio === null ? (meanEnergyRatio === null ? '' : changeText(meanEnergyRatio)) : changeInterval(energyRatio);
  const attainment = attainmentDifference === null ? '' : pointsInterval(attainmentDifference);
  switch (verdict.kind) {
    case 'not-measured':
      return `Energy was not measured: ${verdict.why}. Attainment of ${arm} relative to ${base}: ${attainment}.`;
    case 'too-few-rounds':
      return `Too few rounds to say: ${verdict.rounds} of at least ${ROUNDS_MIN}.${energy === '' ? '' : ` So far the energy of ${arm} relative to ${base} is ${energy}, which may be chance.`}`;
    case 'lower-attainment':
      return `Not at equal attainment: ${arm} attains less than ${base} (${attainment}), so its energy (${energy}) is that of a worse service, and no saving.`;
    case 'attainment-unsure':
      return `Not shown at equal attainment: the energy of ${arm} relative to ${base} is ${energy}, but its attainment may be lower by more than ${100 * ATTAINMENT_MARGIN} point (${attainment}); more requests would tell.`;
    case 'saves':
      return `${arm} saves energy at no lower attainment: ${energy} relative to ${base}; attainment ${attainment}.`;
    case 'costs':
      return `${arm} takes more energy than ${base}: ${energy}; attainment ${attainment}.`;
    case 'no-difference-shown':
      return `No difference in energy shown between ${arm} and ${base}: ${energy}; attainment ${attainment}.`;
    default:
      return unreachable(verdict);
  }
}

/** 0.47 is "-53.0 %". */
export function changeText(ratio: number): string {
  return `${signed(100 * (ratio - 1), 1)} %`;
}

export function changeInterval({ mean, low, high }: Estimate): string {
  return `${changeText(mean)} [${signed(100 * (low - 1), 1)}, ${signed(100 * (high - 1), 1)}]`;
}

export function pointsInterval({ mean, low, high }: Estimate): string {
  return `${signed(100 * mean, 2)} points [${signed(100 * low, 2)}, ${signed(100 * high, 2)}]`;
}

export function msInterval(estimate: Estimate | null): string {
  return estimate === null ? '-' : `${signed(estimate.mean, 1)} ms [${signed(estimate.low, 1)}, ${signed(estimate.high, 1)}]`;
}

function signed(value: number, digits: number): string {
  const text = value.toFixed(digits);
  return Number(text) > 0 ? `+${text}` : Number(text) === 0 ? (0).toFixed(digits) : text;
}
