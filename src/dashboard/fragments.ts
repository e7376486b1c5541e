// The parts of the dashboard's page that change while it is looked at, each by its name: HTML that is swapped in as a whole.
import { escaped } from '../plot/escape.ts';
import { attainmentFragment, clockChangesFragment, requestsFragment } from './decisions-fragment.ts';
import { energyFragment, powerFragment, tenantsFragment } from './energy-fragment.ts';
import { figuresFragment, fleetFragment, problemsFragment } from './fleet-fragment.ts';
import { frontierFragment } from './frontier-fragment.ts';
import type { DashboardView } from './view.ts';
import { instantText } from './words.ts';
import { workflowsFragment } from './workflows-fragment.ts';

export const FRAGMENTS = {
  asof: ({ atUnixMs, policy }: DashboardView): string => `As of ${instantText(atUnixMs)} UTC, policy ${escaped(policy)}.`,
  problems: problemsFragment,
  figures: figuresFragment,
  fleet: fleetFragment,
  frontier: frontierFragment,
  attainment: attainmentFragment,
  workflows: workflowsFragment,
  power: powerFragment,
  energy: energyFragment,
  tenants: tenantsFragment,
  clocks: clockChangesFragment,
  requests: requestsFragment,
} as const satisfies Readonly<Record<string, (view: DashboardView) => string>>;

export type FragmentName = keyof typeof FRAGMENTS;
export type Fragments = Readonly<Record<FragmentName, string>>;

/**
 * The same view gives the same bytes. A part that cannot be drawn is a fault of ours, told to `fault`; it says so in its place, and neither the other
 * parts nor the requests that the gateway serves meanwhile have to do with it.
 */
export function fragmentsOf(view: DashboardView, fault: (name: FragmentName, error: unknown) => void): Fragments {
  const drawn = (name: FragmentName): string => {
    try {
      return FRAGMENTS[name](view);
    } catch (error) {
      fault(name, error);
      return '<p class="none">This part cannot be drawn; the log says why.</p>';
    }
  };
  return Object.fromEntries((Object.keys(FRAGMENTS) as FragmentName[]).map((name) => [name, drawn(name)])) as Record<FragmentName, string>;
}
