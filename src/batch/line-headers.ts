// What a line may take, said in the headers any client would use. All three objectives are said, so that no class of the tenant,
// the model or the default hurries a line on; and none outside of what its tenant may ask for.

export interface LineBounds {
  readonly ttftMs?: { readonly min?: number | undefined; readonly max?: number | undefined } | undefined;
  readonly tpotMs?: { readonly min?: number | undefined; readonly max?: number | undefined } | undefined;
  readonly e2eMs?: { readonly min?: number | undefined; readonly max?: number | undefined } | undefined;
}

const HEADERS = { ttftMs: 'x-slo-ttft-ms', tpotMs: 'x-slo-tpot-ms', e2eMs: 'x-request-deadline-ms' } as const;
/** The longest that a header may say. */
const LIMIT_MS_MAX = 86_400_000;
/** A token a minute is no objective at all; within a deadline the planner knows what pace that needs. */
const TPOT_MS = 60_000;

export function lineHeaders(deadlineMs: number, bounds: LineBounds): Readonly<Record<string, string>> {
  const wantedMs = { ttftMs: deadlineMs, tpotMs: Math.min(deadlineMs, TPOT_MS), e2eMs: deadlineMs };
  return Object.fromEntries(
    (['ttftMs', 'tpotMs', 'e2eMs'] as const).map((objective) => {
      const { min = 1, max = LIMIT_MS_MAX } = bounds[objective] ?? {};
      // Whole where that stays inside.
      const ms = Math.min(max, Math.max(min, Math.min(LIMIT_MS_MAX, Math.ceil(wantedMs[objective]))));
      return [HEADERS[objective], String(ms)];
    }),
  );
}
