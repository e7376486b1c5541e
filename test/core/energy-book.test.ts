import { describe, expect, test } from 'vitest';
import { createEnergyBook, ENERGY_ROW_OTHERS, ENERGY_ROWS_MAX } from '../../src/core/energy-book.ts';

const TOKENS = { promptTokens: 10, cachedTokens: 4, outputTokens: 5 };
const key = (tenant: string, model = 'm') => ({ tenant, model, sloClass: 'chat' });

describe('a book of energy', () => {
  test('adds up by tenant, model and class what is told at ends and what is settled later', () => {
    const book = createEnergyBook();
    book.ended(key('acme'), TOKENS, { meteredJ: 1, modelledJ: 0.1 + 0.2, maximumClockJ: 4 });
    book.ended(key('acme'), TOKENS, { meteredJ: 2, modelledJ: 0, maximumClockJ: 4 });
    book.ended(key('acme', 'other'), TOKENS, { meteredJ: 0, modelledJ: 7, maximumClockJ: 8 });
    book.settled(key('acme'), { meteredJ: 0.5, modelledJ: -0.3, maximumClockJ: -1 });
    expect(book.rows()).toEqual([
      { ...key('acme'), requests: 2, promptTokens: 20, cachedTokens: 8, outputTokens: 10, meteredJ: 3.5, modelledJ: 0, maximumClockJ: 7 },
      { ...key('acme', 'other'), requests: 1, ...TOKENS, meteredJ: 0, modelledJ: 7, maximumClockJ: 8 },
    ]);
  });

  test('has so many rows at most, and one for all that is beyond; nothing is lost', () => {
    const book = createEnergyBook();
    for (let index = 0; index < ENERGY_ROWS_MAX + 10; index++) book.ended(key(`t${index}`), TOKENS, { meteredJ: 1, modelledJ: 0, maximumClockJ: 1 });
    book.settled(key('t0'), { meteredJ: 1, modelledJ: 0, maximumClockJ: 0 });
    book.settled(key(`t${ENERGY_ROWS_MAX + 5}`), { meteredJ: 1, modelledJ: 0, maximumClockJ: 0 });
    const rows = book.rows();
    expect(rows).toHaveLength(ENERGY_ROWS_MAX);
    expect(rows.find(({ tenant }) => tenant === ENERGY_ROW_OTHERS.tenant)).toMatchObject({ requests: 11, meteredJ: 12 });
    expect(rows[0]).toMatchObject({ tenant: 't0', meteredJ: 2 });
    expect(rows.reduce((sum, { requests }) => sum + requests, 0)).toBe(ENERGY_ROWS_MAX + 10);
  });
});
