// What is wrong with a trace, an SLO file or a synthetic workload, said so that it can be mended.

/** Expected: the message is written for the person at the command line. */
export class WorkloadError extends Error {
  override name = 'WorkloadError';
}

/** A line that cannot be read. Lines count from 1, as editors do. */
export function malformed(at: { readonly file: string; readonly line: number; readonly column: string; readonly given: string; readonly want: string }): WorkloadError {
  return new WorkloadError(`${at.file}:${at.line} ${at.column}: got ${quoted(at.given)}, want ${at.want}`);
}

/** Long or binary text is cut: an error message is no place for a whole line of a trace. */
export function quoted(given: string): string {
  const shown = given.length <= 60 ? given : `${given.slice(0, 60)}…`;
  return JSON.stringify(shown);
}
