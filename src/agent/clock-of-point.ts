// From an operating point to what the agent can set: the only place where a knob gets a meaning on this side of the socket.
import type { OperatingPoint } from '../frontier/profile.ts';

export type ClockOfPoint = { readonly kind: 'clock'; readonly clockMhz: number | null } | { readonly kind: 'unsupported'; readonly knobs: readonly string[] };

export function clockOf(point: OperatingPoint | null): ClockOfPoint {
  if (point === null) return { kind: 'clock', clockMhz: null };
  const others = Object.keys(point.knobs).filter((knob) => knob !== 'clockMhz');
  const clockMhz = point.knobs['clockMhz'];
  if (others.length > 0 || typeof clockMhz !== 'number') return { kind: 'unsupported', knobs: others.length > 0 ? others : ['clockMhz'] };
  return { kind: 'clock', clockMhz: Math.ceil(clockMhz) };
}
