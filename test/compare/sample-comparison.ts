// Comparisons made up for tests: what is not said is the same in both arms.
import { COMPARISON_FORMAT, type Comparison, type Turn } from '../../src/compare/comparison-file.ts';

export interface MadeTurn {
  readonly energyJ?: number | null;
  readonly met?: number;
  readonly requests?: number;
  readonly outputTokens?: number;
  readonly ttftMs?: readonly number[];
  readonly interrupted?: boolean;
  readonly notes?: readonly string[];
}

/** By arm, one turn for each round. */
export function makeComparison(arms: Readonly<Record<string, readonly MadeTurn[]>>, end: Comparison['end'] = { kind: 'complete' }): Comparison {
  const rounds = Math.max(...Object.values(arms).map((turns) => turns.length));
  return {
    format: COMPARISON_FORMAT,
    startedAt: '2026-11-26T16:00:00.000Z',
    command: 'paceline bench --compare …',
    arms: Object.keys(arms).map((name) => ({ name, target: `http://${name.replaceAll(/\W/g, '')}:8000`, model: 'm' })),
    meters: [{ arm: null, kind: 'agent', devices: [] }],
    load: { workload: 'poisson 4/s', seed: 1, rounds, restS: 5, warmUpS: 10, loadS: 60, tailS: 15, endpoint: 'chat', lengths: 'hidden', classes: [{ name: 'chat', share: 1, ttftMs: 1500, tpotMs: 50 }] },
    turns: Array.from({ length: rounds }, (_, round) => round).flatMap((round) => Object.entries(arms).flatMap(([arm, turns]) => (turns[round] === undefined ? [] : [turnOf(arm, round, turns[round])]))),
    end,
  };
}

function turnOf(arm: string, round: number, made: MadeTurn): Turn {
  const { energyJ = 10_000, requests = 500, met = requests, outputTokens = 50_000, ttftMs = [100, 200, 300], interrupted = false, notes = [] } = made;
  return {
    round, arm, startedAtS: round * 100, seed: 1 + round, promptSalt: 7, interrupted, requests, completed: requests, failed: 0, rejected: 0, unfinished: 0, met,
    byClass: { chat: { requests, met } }, missed: { ttftMs: requests - met, tpotMs: 0, e2eMs: 0 }, failures: {}, promptTokens: 1000, cachedTokens: 0, outputTokens,
    ttftMs: [...ttftMs], tpotMs: [20, 30, 40], e2eMs: [1000, 2000, 3000], sendLatenessP99Ms: 1, durationS: 62, windowS: 75,
    energy: energyJ === null ? null : { kind: 'measured', energyJ, how: 'counter' },
    power: { everyS: 1, meanW: energyJ === null ? [] : [100, 200, null, 150], tickS: 0.1 },
    notes: [...notes],
  };
}
