// The explanation of one request as text for people. The same run gives the same bytes.
import type { Slo } from '../core/job.ts';
import type { ClockDecision, ConsideredReplica, RequestExplanation } from './explanation.ts';
import { tableOf } from './format-table.ts';

/** Lines of clock decisions that are shown; a long answer on a busy replica has hundreds. */
const DECISIONS_SHOWN_MAX = 60;
/** Replicas that are shown of those considered. */
const REPLICAS_SHOWN_MAX = 20;

export function formatExplanation(explanation: RequestExplanation): string {
  const { request, atMs, promptTokens, outputTokens, sloClass, slo, considered, sent, report, rejected, clocks } = explanation;
  const lines = [`request ${request}: arrived at ${seconds(atMs)}, ${promptTokens} prompt tokens, ${outputTokens} output tokens, class ${sloClass} (${limitsName(slo)})`];
  if (rejected !== null) return [...lines, `refused: ${rejected}`].join('\n');
  if (considered !== null) {
    const { replicas } = considered;
    const kept = considered.timesKept === 0 ? '' : `, after having been kept in the queue ${considered.timesKept} times`;
    lines.push('', `considered at ${seconds(considered.atMs)}${kept}; each replica as it would be with it (idle ones of a profile are alike, one stands for all). Risk: deadlines expected to be missed more, at most ${(replicas[0]?.riskMax ?? 0).toFixed(4)} while it can wait:`, tableOf(considerationColumns(sent?.replicaId ?? null), replicas.slice(0, REPLICAS_SHOWN_MAX)));
    if (replicas.length > REPLICAS_SHOWN_MAX) lines.push(`… and ${replicas.length - REPLICAS_SHOWN_MAX} more`);
  }
  if (sent === null) return [...lines, '', 'never sent'].join('\n');
  const { prediction, predictedTpotMs } = sent;
  lines.push(
    '',
    `sent to ${sent.replicaId} at ${seconds(sent.atMs)}, ${milliseconds(sent.atMs - atMs)} after its arrival`,
    `predicted (corrected by what was learnt, for the middle length of answers): TTFT ${milliseconds(prediction.ttftMs)}, TPOT ${milliseconds(predictedTpotMs)}, e2e ${milliseconds(prediction.e2eMs)}, slack ${milliseconds(prediction.slackMs)}, ${prediction.feasible ? 'feasible' : 'infeasible'}`,
  );
  if (report === null) return [...lines, 'happened: it had not ended when the run did'].join('\n');
  const verdict = report.met === null ? report.outcome : report.met ? 'met' : 'missed';
  lines.push(`happened: TTFT ${milliseconds(report.ttftMs)}, TPOT ${milliseconds(report.tpotMs)}, e2e ${milliseconds(report.e2eMs)}, ${report.outputTokens} tokens: ${verdict}`);
  if (clocks.length > 0) {
    lines.push('', `clock decisions for ${sent.replicaId} in that time, the one that stood before it first:`, tableOf(DECISION_COLUMNS, clocks.slice(0, DECISIONS_SHOWN_MAX)));
    if (clocks.length > DECISIONS_SHOWN_MAX) lines.push(`… and ${clocks.length - DECISIONS_SHOWN_MAX} more`);
  }
  return lines.join('\n');
}

function considerationColumns(chosenId: string | null): readonly (readonly [string, (replica: ConsideredReplica) => string])[] {
  return [
    ['replica', ({ replicaId }) => (replicaId === chosenId ? `${replicaId} <- chosen` : replicaId)],
    ['plan', ({ plan }) => plan],
    ['point', ({ pointId }) => pointId],
    ['bound by', ({ binding }) => binding],
    ['slack', ({ slackMs }) => milliseconds(slackMs)],
    ['charged', ({ chargedJ }) => `${chargedJ.toFixed(0)} J`],
    ['own risk', ({ ownRisk }) => ownRisk.toFixed(4)],
    ["others' risk", ({ othersRisk }) => othersRisk.toFixed(4)],
    ['TTFT', ({ ttftMs }) => milliseconds(ttftMs)],
    ['TPOT', ({ tpotMs }) => milliseconds(tpotMs)],
    ['so', (replica) => verdictOf(replica, replica.replicaId === chosenId)],
  ];
}

/** In the order in which routing asks. */
function verdictOf({ ownRisk, othersRisk, riskMax, distressed, slackMs }: ConsideredReplica, chosen: boolean): string {
  const atRisk = ownRisk + othersRisk > riskMax;
  if (chosen) return atRisk ? (ownRisk >= 1 ? 'late anywhere' : 'could wait no longer') : 'the cheapest left';
  if (atRisk) return 'too much at risk';
  if (distressed) return 'behind already';
  return slackMs !== null && slackMs < 0 ? 'no margin' : 'dearer';
}

const DECISION_COLUMNS: readonly (readonly [string, (decision: ClockDecision) => string])[] = [
  ['at', ({ atMs }) => seconds(atMs)],
  ['point', ({ pointId }) => pointId ?? 'default'],
  ['change', ({ change }) => change],
  ['bound by', ({ binding }) => binding],
  ['request', ({ bindingRequest }) => (bindingRequest === null ? '-' : String(bindingRequest))],
  ['slack', ({ slackMs }) => milliseconds(slackMs)],
];

function limitsName({ ttftMs, tpotMs, e2eMs }: Slo): string {
  const limits = [ttftMs === undefined ? [] : [`TTFT ${ttftMs} ms`], tpotMs === undefined ? [] : [`TPOT ${tpotMs} ms`], e2eMs === undefined ? [] : [`e2e ${e2eMs} ms`]].flat();
  return limits.join(', ') || 'best effort';
}

function seconds(atMs: number): string {
  return `${(atMs / 1000).toFixed(3)} s`;
}

function milliseconds(value: number | null): string {
  return value === null ? '-' : `${value.toFixed(Math.abs(value) >= 100 ? 0 : 1)} ms`;
}
