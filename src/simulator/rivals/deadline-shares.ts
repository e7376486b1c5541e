// How a client would share a workflow's deadline out among its calls by itself: an SLO for each, fixed beforehand. Rivals of allotting the slack
// by energy, and again whenever something ends early or late.
import type { Slo } from '../../core/job.ts';
import { longestMs } from '../../core/workflow-frontier.ts';

/** A part: a call, or a tool that takes what it takes. */
export interface SharedPart {
  readonly kind: 'call' | 'tool';
  /** As expected: of a call at the fastest point, in the company that it will have. */
  readonly timeMs: number;
}

type Edges = readonly (readonly [number, number])[];

/**
 * An end-to-end limit for each call, in their order (tools have none), so that they keep the deadline if every one keeps its own: `equal`, the same
 * for all, by the path with the most calls for its time; `proportional`, to what each takes, by the path that takes longest. Throws `RangeError` for a cycle.
 */
export function callSlos(share: 'equal' | 'proportional', parts: readonly SharedPart[], edges: Edges, deadlineMs: number): readonly Slo[] {
  const weightOf = (part: SharedPart): number => (part.kind === 'tool' ? 0 : share === 'equal' ? 1 : part.timeMs);
  // The largest factor that no path exceeds the deadline with: tools take their time, calls their weight times it.
  let [low, high] = [0, deadlineMs];
  for (let halving = 0; halving < HALVINGS; halving++) {
    const middle = (low + high) / 2;
    if (longestMs(parts.map((part) => (part.kind === 'tool' ? part.timeMs : middle * weightOf(part))), edges) <= deadlineMs) low = middle;
    else high = middle;
  }
  return parts.map((part) => (part.kind === 'tool' ? {} : { e2eMs: Math.max(1, low * weightOf(part)) }));
}

const HALVINGS = 60;
