// Whether each class meets its target, and the last decisions: clocks that were changed and requests that ended, predicted and real.
import { tableHtml } from '../plot/page.ts';
import type { EndedRequest } from './history.ts';
import type { DashboardView } from './view.ts';
import { clockText, durationText, energyText, instantText, reasonText, rejectText, shareText } from './words.ts';

export function attainmentFragment({ remembered: { attainment }, attainmentTarget }: DashboardView): string {
  if (attainment.length === 0) return '<p class="none">No request with a deadline has ended in the last 15 minutes.</p>';
  return tableHtml({
    columns: ['class', 'met', 'missed', 'attainment', 'target', 'target met'],
    rows: attainment.map(({ sloClass, met, missed }) => [sloClass, met, missed, shareText(met / (met + missed)), shareText(attainmentTarget), met / (met + missed) >= attainmentTarget ? '✓ yes' : '✗ no']),
  });
}

export function clockChangesFragment({ remembered: { clockChanges }, beliefs }: DashboardView): string {
  if (clockChanges.length === 0) return '<p class="none">No clock has been changed yet.</p>';
  return tableHtml({
    columns: ['time (UTC)', 'replica', 'from', 'to', 'why'],
    rows: clockChanges.map(({ atUnixMs, replicaId, group, fromPointId, toPointId, why }) => {
      const model = beliefs.get(replicaId);
      return [instantText(atUnixMs), group === null ? replicaId : `${replicaId}, ${group}`, fromPointId === undefined ? 'not known' : clockText(model, fromPointId), clockText(model, toPointId), `${reasonText(why)}${why.slackMs === undefined ? '' : ` (${durationText(why.slackMs)} of slack)`}`];
    }),
  });
}

export function requestsFragment({ remembered: { requests } }: DashboardView): string {
  if (requests.length === 0) return '<p class="none">No request has ended yet.</p>';
  return tableHtml({
    columns: ['time (UTC)', 'request', 'class', 'replica', 'deadlines', 'first token (predicted)', 'per token (predicted)', 'tokens', 'energy'],
    rows: requests.map(requestCells),
  });
}

function requestCells(request: EndedRequest): (string | number)[] {
  const start = [instantText(request.atUnixMs), request.jobId ?? '', request.sloClass];
  if (request.kind === 'rejected') return [...start, '', `refused: ${rejectText(request.reason)}`, '', '', '', ''];
  const { replicaId, outcome, met, ttftMs, tpotMs, prediction, promptTokens, outputTokens, energyJ } = request.report;
  const deadlines = outcome === 'cancelled' ? 'its client left' : outcome === 'failed' ? '✗ failed' : met === null ? 'none' : met ? '✓ met' : '✗ missed';
  const withPredicted = (ms: number | null, predictedMs: number | undefined): string => (ms === null ? '' : `${durationText(ms)}${predictedMs === undefined ? '' : ` (${durationText(predictedMs)})`}`);
  return [...start, replicaId ?? '', deadlines, withPredicted(ttftMs, prediction?.ttftMs), withPredicted(tpotMs, prediction?.tpotMs), `${promptTokens} + ${outputTokens}`, energyJ > 0 ? energyText(energyJ) : ''];
}
