// Who used how much: requests, tokens and joules by tenant, model and SLO class, since the start. What counters say and what
// the profile says are kept apart in every row.
import type { JobEnergy } from './energy-ledger.ts';

export interface EnergyAccountKey {
  readonly tenant: string;
  readonly model: string;
  readonly sloClass: string;
}

export interface EnergyAmounts extends JobEnergy {
  /** That were sent to a server, however they ended. */
  readonly requests: number;
  readonly promptTokens: number;
  /** Of them, what servers said that they had cached. */
  readonly cachedTokens: number;
  readonly outputTokens: number;
}

export interface EnergyRow extends EnergyAccountKey, EnergyAmounts {}

export interface EnergyBook {
  /** A request has ended; `energy` as known by then. */
  ended(of: EnergyAccountKey, tokens: Pick<EnergyAmounts, 'promptTokens' | 'cachedTokens' | 'outputTokens'>, energy: JobEnergy): void;
  /** More, or less, is known of one that had ended. */
  settled(of: EnergyAccountKey, more: JobEnergy): void;
  rows(): readonly EnergyRow[];
}

/** Names come from the configuration, and configurations change; what is beyond it goes to one row. */
export const ENERGY_ROWS_MAX = 4_096;

/** The row of what there was no row for. */
export const ENERGY_ROW_OTHERS: EnergyAccountKey = { tenant: '(others)', model: '(others)', sloClass: '(others)' };

const DUST_J = 1e-6;

type Row = { -readonly [Field in keyof EnergyRow]: EnergyRow[Field] };

export function createEnergyBook(): EnergyBook {
  const rows = new Map<string, Row>();

  function rowOf(of: EnergyAccountKey): Row {
    const key = `${of.tenant}\n${of.model}\n${of.sloClass}`;
    const known = rows.get(key);
    if (known !== undefined) return known;
    if (rows.size >= ENERGY_ROWS_MAX - 1 && of !== ENERGY_ROW_OTHERS) return rowOf(ENERGY_ROW_OTHERS);
    const { tenant, model, sloClass } = of;
    const row: Row = { tenant, model, sloClass, requests: 0, promptTokens: 0, cachedTokens: 0, outputTokens: 0, meteredJ: 0, modelledJ: 0, maximumClockJ: 0 };
    rows.set(key, row);
    return row;
  }

  function add(row: Row, { meteredJ, modelledJ, maximumClockJ }: JobEnergy): void {
    row.meteredJ += meteredJ;
    row.modelledJ += modelledJ;
    row.maximumClockJ += maximumClockJ;
  }

  return {
    ended(of, { promptTokens, cachedTokens, outputTokens }, energy) {
      const row = rowOf(of);
      row.requests += 1;
      row.promptTokens += promptTokens;
      row.cachedTokens += cachedTokens;
      row.outputTokens += outputTokens;
      add(row, energy);
    },
    settled(of, more) {
      add(rowOf(of), more);
    },
    // What was modelled and then metered leaves the dust of sums.
    rows: () => [...rows.values()].map((row) => ({ ...row, modelledJ: Math.abs(row.modelledJ) < DUST_J ? 0 : row.modelledJ })),
  };
}
