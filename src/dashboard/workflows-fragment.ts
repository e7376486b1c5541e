// Agents' jobs of several calls: how many are open, and by name what became of those that ended lately.
import { OTHER_NAMES } from '../core/recent-workflows.ts';
import { tableHtml } from '../plot/page.ts';
import type { DashboardView } from './view.ts';
import { energyText, shareText } from './words.ts';

export function workflowsFragment({ workflows: { open, lately } }: DashboardView): string {
  if (open === 0 && lately.length === 0) return '<p class="none">No workflow is open, and none has ended in the last 15 minutes.</p>';
  const heading = `<p>${open === 0 ? 'None is' : open === 1 ? 'One is' : `${open} are`} open now.</p>`;
  if (lately.length === 0) return heading;
  return `${heading}${tableHtml({
    columns: ['workflow', 'tenant', 'ended', 'in time', 'late', 'ended by the client', 'took, of the deadline', 'energy each'],
    rows: lately.map(({ tenant, name, met, missed, unknown, tookShare, energyJ }) => [
      tenant === OTHER_NAMES ? 'others' : (name ?? 'without a name'),
      tenant === OTHER_NAMES ? '' : tenant,
      met + missed + unknown,
      met,
      missed,
      unknown,
      tookShare === null ? '' : shareText(tookShare),
      energyJ > 0 ? energyText(energyJ) : '',
    ]),
  })}`;
}
