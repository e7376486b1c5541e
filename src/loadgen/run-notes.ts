// What a reader of a result has to know to trust it, or not to. Pure.
import type { Lengths } from './request-body.ts';
import type { RequestRecord } from './request-record.ts';

/** Above this the sending machine, not the server, shapes the latencies. */
const LATENESS_NOTED_MS = 50;
/** Beyond this the engine did not take the lengths it was given. */
const LENGTH_ERROR_NOTED = 0.05;

export function runNotes(run: {
  readonly records: readonly RequestRecord[];
  readonly durationS: number;
  readonly windowS: number | undefined;
  readonly lengths: Lengths;
  readonly interrupted: boolean;
  readonly unfinished: number;
}): readonly string[] {
  const { records, durationS, windowS, lengths } = run;
  const notes: string[] = [];
  if (run.interrupted) notes.push(`interrupted: ${run.unfinished} requests in flight were given up and count neither way`);

  const capped = records.filter((record) => record.kind === 'failed' && record.reason === 'in-flight-cap').length;
  if (capped > 0) notes.push(`${capped} requests were never sent (in-flight cap) and count as failed: the server is far behind this load`);

  const late = records.filter(({ latenessMs }) => latenessMs > LATENESS_NOTED_MS).length;
  if (late > records.length / 100) notes.push(`${late} of ${records.length} requests went out more than ${LATENESS_NOTED_MS} ms late: this machine is too busy to send, latencies include that`);

  if (windowS !== undefined && !run.interrupted && durationS > windowS) notes.push(`the last answer ended ${(durationS - windowS).toFixed(1)} s after the energy window: its tokens are counted, its energy is not; use a longer --window-s`);

  const completed = records.filter((record) => record.kind === 'completed');
  const unreported = completed.filter(({ usageReported }) => !usageReported).length;
  if (unreported > 0) notes.push(`${unreported} answers came without usage: their tokens are counted events`);

  const wanted = completed.reduce((sum, { wantedOutputTokens }) => sum + wantedOutputTokens, 0);
  const got = completed.reduce((sum, { outputTokens }) => sum + outputTokens, 0);
  if (wanted > 0 && Math.abs(got / wanted - 1) > LENGTH_ERROR_NOTED) {
    notes.push(`answers have ${got} tokens where the workload wants ${wanted}: ${lengths === 'hidden' ? 'this engine does not obey metadata.emulate_output_tokens, use --lengths exact' : 'this engine does not obey ignore_eos'}`);
  }
  return notes;
}
