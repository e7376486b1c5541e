// Azure's LLM inference traces (github.com/Azure/AzurePublicDataset, 2023 and 2024): one CSV line per request.
import type { Workload, WorkloadRequest } from './request.ts';
import { boundedPush, inOrderOfArrival, tokenCount, traceLines } from './trace-text.ts';
import { WorkloadError, malformed } from './workload-error.ts';

const HEADER = 'TIMESTAMP,ContextTokens,GeneratedTokens';
// 2023 writes `2023-11-16 18:17:03.9799600`, 2024 `2024-05-10 00:00:00.009930+00:00`; both are UTC.
const TIMESTAMP = /^(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)?$/;

/** Times count from the first request of the file. `file` is for messages and the workload's name. */
export function readAzureTrace(text: string, file: string): Workload {
  const requests: WorkloadRequest[] = [];
  let first: Instant | undefined;
  let headerSeen = false;
  for (const line of traceLines(text)) {
    if (!headerSeen) {
      if (line.text !== HEADER) throw malformed({ file, line: line.number, column: 'header', given: line.text, want: HEADER });
      headerSeen = true;
      continue;
    }
    const at = { file, line: line.number };
    const fields = line.text.split(',');
    if (fields.length !== 3) throw malformed({ ...at, column: 'line', given: line.text, want: `3 fields (${HEADER})` });
    const [timestamp = '', contextTokens = '', generatedTokens = ''] = fields;
    const instant = readInstant(timestamp);
    if (instant === null) throw malformed({ ...at, column: 'TIMESTAMP', given: timestamp, want: 'a UTC time such as 2023-11-16 18:17:03.9799600' });
    first ??= instant;
    const request = {
      // Whole seconds and fractions apart: 100 ns do not survive in a double of milliseconds since 1970.
      atMs: instant.secondsMs - first.secondsMs + (instant.fractionMs - first.fractionMs),
      promptTokens: tokenCount(contextTokens, { ...at, column: 'ContextTokens' }),
      outputTokens: tokenCount(generatedTokens, { ...at, column: 'GeneratedTokens' }),
      line: line.number,
    };
    boundedPush(requests, request, file);
  }
  if (requests.length === 0) throw new WorkloadError(`${file}: no requests; want the header ${HEADER} and lines below it`);
  inOrderOfArrival(requests);
  const earliestMs = requests[0]?.atMs ?? 0;
  // Only where the file's first line was not its earliest.
  return { name: `azure ${file}`, requests: earliestMs === 0 ? requests : requests.map((request) => ({ ...request, atMs: request.atMs - earliestMs })) };
}

interface Instant {
  readonly secondsMs: number;
  readonly fractionMs: number;
}

function readInstant(text: string): Instant | null {
  const [, year, month, day, hour, minute, second, fraction] = TIMESTAMP.exec(text) ?? [];
  const secondsMs = Date.UTC(Number(year), Number(month) - 1, Number(day), Number(hour), Number(minute), Number(second));
  if (Number.isNaN(secondsMs)) return null;
  // `Date.UTC` carries a 31 February or 25 o'clock over; what does not come back as it went in was no time.
  if (new Date(secondsMs).toISOString().slice(0, 19) !== `${year}-${month}-${day}T${hour}:${minute}:${second}`) return null;
  return { secondsMs, fractionMs: fraction === undefined ? 0 : Number(`0.${fraction}`) * 1000 };
}
