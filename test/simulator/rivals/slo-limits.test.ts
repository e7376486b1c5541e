import { describe, expect, test } from 'vitest';
import type { JobId, Slo } from '../../../src/core/job.ts';
import { tightened } from '../../../src/simulator/rivals/slo-limits.ts';
import { prompt, stream, view } from './rival-views.ts';

const slos = (slo: Slo): Map<JobId, Slo> => new Map([['prompt' as JobId, slo], ['stream' as JobId, slo]]);

describe('the limits that rivals plan by', () => {
  test('are the jobs own without a margin', () => {
    const own = view({ waiting: [prompt({ ttftDeadlineAtMs: 900, tpotLimitMs: 40 })], running: [stream({ tpotLimitMs: 40 })], tightestTpotMs: 40, tightestTtftMs: 1000 });
    expect(tightened(own, 0, slos({ ttftMs: 1000, tpotMs: 40 }))).toEqual(own);
  });

  test('are tightened from arrival on, not from now', () => {
    const { waiting, running, tightestTtftMs } = tightened(view({ nowMs: 100, waiting: [prompt({ ttftDeadlineAtMs: 900, tpotLimitMs: 40 })], running: [stream({ tpotLimitMs: 40 })], tightestTtftMs: 1000 }), 0.2, slos({ ttftMs: 1000, tpotMs: 40 }));
    expect(waiting[0]).toMatchObject({ ttftDeadlineAtMs: 700, tpotLimitMs: 32 });
    expect(running[0]?.tpotLimitMs).toBe(32);
    expect(tightestTtftMs).toBe(800);
  });

  test('make a budget per token of a limit on the whole request', () => {
    const { waiting, running, tightestTpotMs } = tightened(view({ nowMs: 1000, waiting: [prompt({ e2eDeadlineAtMs: 13_000, outputTokensMiddle: 299 })], running: [stream({ e2eDeadlineAtMs: 11_000, remainingMiddle: 200 })] }), 0, slos({ e2eMs: 12_000 }));
    expect(waiting[0]?.tpotLimitMs).toBe(40);
    expect(waiting[0]?.ttftDeadlineAtMs).toBeLessThan(13_000);
    expect(running[0]?.tpotLimitMs).toBe(50);
    expect(tightestTpotMs).toBe(40);
  });

  test('leave a limit on the whole request to a rival that plans whole requests', () => {
    const { waiting, running } = tightened(view({ waiting: [prompt({ e2eDeadlineAtMs: 12_000 })], running: [stream({ e2eDeadlineAtMs: 11_000 })] }), 0.25, slos({ e2eMs: 12_000 }), 'planned');
    expect(waiting[0]).toMatchObject({ e2eDeadlineAtMs: 9000, ttftDeadlineAtMs: Infinity, tpotLimitMs: Infinity });
    expect(running[0]).toMatchObject({ e2eDeadlineAtMs: 8000, tpotLimitMs: Infinity });
  });

  test('stay infinite for a job without SLO', () => {
    const { waiting, running } = tightened(view({ waiting: [prompt()], running: [stream()] }), 0.5, slos({}));
    expect(waiting[0]).toMatchObject({ ttftDeadlineAtMs: Infinity, e2eDeadlineAtMs: Infinity, tpotLimitMs: Infinity });
    expect(running[0]).toMatchObject({ e2eDeadlineAtMs: Infinity, tpotLimitMs: Infinity });
  });
});
