import { describe, expect, test } from 'vitest';
import type { CellResult } from '../../bench/energy/cell.ts';
import { formatCells, ratiosOf, summaryOf } from '../../bench/energy/table.ts';

const outcome = (policy: string, energyJ: number, attainment = 1): CellResult['paceline'] => ({ policy, energyJ, attainment });

function cell(over: Partial<CellResult> = {}): CellResult {
  return {
    profile: 'p',
    workload: 'tenants',
    recorded: false,
    belief: 'right',
    load: 'low',
    ratePerS: 1,
    requests: 100,
    infeasible: 0,
    paceline: outcome('paceline', 50, 0.995),
    maxClock: outcome('max-clock', 100),
    bestStatic: outcome('static:780', 80),
    bestRival: outcome('voltanallm', 70),
    clairvoyant: outcome('clairvoyant', 40),
    lowerBoundJ: 25,
    rivals: [],
    prediction: { ttftErrorPct: 5, ttftCoverage: 0.9, tpotErrorPct: 6, tpotCoverage: 0.91 },
    ...over,
  };
}

describe('the table of the energy bench', () => {
  test('has energies relative to each of the others', () => {
    expect(ratiosOf(cell())).toEqual({ maxClock: 0.5, bestStatic: 0.625, bestRival: 50 / 70, clairvoyant: 1.25, lowerBound: 2 });
  });

  test('averages over low and middle load, leaves out what did not reach the attainment, and says how often that was', () => {
    const summary = summaryOf([cell(), cell({ load: 'middle', paceline: outcome('paceline', 60, 0.98), bestStatic: null, bestRival: null, lowerBoundJ: null }), cell({ load: 'high', paceline: outcome('paceline', 99, 0.5) })]);
    expect(summary).toMatchObject({ cells: 2, attainmentLeast: 0.98, cellsBelowTarget: 1, vsMaxClock: 0.55, vsBestStatic: 0.625, noStatic: 1, noRival: 1 });
    expect(summaryOf([cell({ bestStatic: null })]).vsBestStatic).toBeNull();
  });

  test('lists cells below the attainment wanted first, then those that save least', () => {
    const lines = formatCells([cell({ profile: 'wins' }), cell({ profile: 'loses', bestRival: outcome('agft', 49) }), cell({ profile: 'misses', paceline: outcome('paceline', 10, 0.9) })]).split('\n');
    expect(lines.slice(1, 4).map((line) => line.split(' ')[0])).toEqual(['misses', 'loses', 'wins']);
    expect(formatCells([cell({ bestStatic: null })])).toContain('none');
  });
});
