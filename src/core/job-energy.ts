// What one job cost, as the profile says: its prefill and its equal part of every step it took part in. Where there is no meter what a tenant's
// budget is charged; an estimate, for neither the steps nor the points in between are looked up.
import type { PerformanceModel, PointIndex } from '../frontier/performance-model.ts';

/** Where it ran: when it was sent there, or when it ended. */
export interface Company {
  readonly point: PointIndex;
  /** What its prompt is prefilled at, if elsewhere. */
  readonly prefillPoint?: PointIndex;
  /** On the replica, this job included. */
  readonly sequences: number;
}

/**
 * Joules of the device group while it worked, this job's part; what it idles is nobody's. Steps cost the mean of those at
 * `sent` and at `ended`.
 */
export function jobEnergyJ(model: PerformanceModel, tokens: { readonly promptTokens: number; readonly outputTokens: number }, sent: Company, ended: Company): number {
  const { promptTokens, outputTokens } = tokens;
  const prefillJ = promptTokens <= 0 ? 0 : model.prefillEnergyJ({ tokens: promptTokens, contextTokens: 0 }, sent.prefillPoint ?? sent.point);
  if (outputTokens <= 1) return prefillJ;
  const partJ = ({ point, sequences }: Company): number => model.decodeEnergyJ({ sequences, contextTokens: sequences * (promptTokens + outputTokens / 2) }, point) / sequences;
  return prefillJ + ((outputTokens - 1) * (partJ(sent) + partJ(ended))) / 2;
}
