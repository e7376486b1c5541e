// Frontiers of work that is no LLM phase, as a document of its own: what public sweeps measured, each candidate with its knobs. A
// profile says more (any size of work can be asked for), so a gateway takes profiles only; these are for people, and for workflows.
import { z } from 'zod';

export interface MeasuredPoint {
  readonly knobs: Readonly<Record<string, number | string>>;
  readonly timeMs: number;
  readonly energyJ: number;
}

export interface MeasuredFrontier {
  /** Which piece of work: "stage 0 forward", "one request of 1023 in, 99 out at 1.75 requests/s". */
  readonly work: string;
  /** All that was measured, efficient or not. */
  readonly points: readonly MeasuredPoint[];
}

export interface FrontiersFile {
  readonly format: 'paceline-frontiers/1';
  readonly name: string;
  readonly knobs: Readonly<Record<string, { readonly unit: string }>>;
  readonly frontiers: readonly MeasuredFrontier[];
  readonly provenance: { readonly source: string; readonly licence: string; readonly convertedFrom: string; readonly notes: readonly string[] };
}

/** Of one file; a sweep of every clock of every GPU of a large pipeline has some ten thousand. */
const POINTS_MAX = 100_000;

const text = z.string().min(1).max(4_000);
export const frontiersSchema: z.ZodType<FrontiersFile> = z.strictObject({
  format: z.literal('paceline-frontiers/1'),
  name: text,
  knobs: z.record(text, z.strictObject({ unit: text })),
  frontiers: z.array(z.strictObject({ work: text, points: z.array(z.strictObject({ knobs: z.record(text, z.union([z.number(), text])), timeMs: z.number().positive(), energyJ: z.number().positive() })).min(1).max(POINTS_MAX) })).min(1).max(10_000),
  provenance: z.strictObject({ source: text, licence: text, convertedFrom: text, notes: z.array(text).max(20) }),
});
