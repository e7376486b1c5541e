// Percentiles of measured times, as results state them.

/** `null` where there is nothing to take a percentile of. */
export interface Percentiles {
  readonly p50: number | null;
  readonly p90: number | null;
  readonly p99: number | null;
}

/** Linear between the two nearest ranks, as NumPy does by default. */
export function percentiles(values: readonly number[]): Percentiles {
  const sorted = Float64Array.from(values).sort();
  const at = (share: number): number | null => {
    if (sorted.length === 0) return null;
    const rank = share * (sorted.length - 1);
    const [below, above] = [sorted[Math.floor(rank)] ?? 0, sorted[Math.ceil(rank)] ?? 0];
    return below + (above - below) * (rank - Math.floor(rank));
  };
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99) };
}
