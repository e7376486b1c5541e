// What must hold whatever comes from outside. Each law answers what is wrong, or `null`.
import type { Usage } from '../../src/core/job.ts';
import { withModelName, withUsageAsked } from '../../src/http/body-edit.ts';
import { readInferenceRequest } from '../../src/http/openai-request.ts';
import { createSseScanner } from '../../src/upstream/sse-scanner.ts';
import { createTail } from '../../src/upstream/tail.ts';
import { usageIn } from '../../src/upstream/usage.ts';
import type { FuzzInput } from './inputs.ts';

/** What is put to the test; a test of the fuzzer itself puts something broken here. */
export interface Targets {
  readonly createSseScanner: typeof createSseScanner;
  readonly createTail: typeof createTail;
  readonly usageIn: typeof usageIn;
  readonly readInferenceRequest: typeof readInferenceRequest;
  readonly withModelName: typeof withModelName;
  readonly withUsageAsked: typeof withUsageAsked;
}

export const TARGETS: Targets = { createSseScanner, createTail, usageIn, readInferenceRequest, withModelName, withUsageAsked };

const OTHER_NAME = 'org/"other"\\🛶';

export function violationOf(input: FuzzInput, targets: Targets): string | null {
  try {
    return input.kind === 'answer' ? ofAnswer(input, targets) : ofRequest(input, targets);
  } catch (error) {
    return `threw ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`;
  }
}

function ofAnswer({ bytes, cuts }: FuzzInput, targets: Targets): string | null {
  const whole = scan([bytes], targets);
  const cut = scan(pieces(bytes, cuts), targets);
  if (whole !== cut) return `the scanner reads ${whole} from the whole and ${cut} from pieces cut at ${cuts.join(', ')}`;
  const singly = bytes.length <= 200 ? scan(pieces(bytes, Array.from({ length: bytes.length }, (_, at) => at)), targets) : whole;
  if (whole !== singly) return `the scanner reads ${whole} from the whole and ${singly} from single bytes`;
  const passed = passedOf([bytes], targets);
  const passedCut = passedOf(pieces(bytes, cuts), targets);
  if (passed !== passedCut) return `of the whole ${JSON.stringify(passed)} passes and ${JSON.stringify(passedCut)} of pieces cut at ${cuts.join(', ')}`;
  if (!isWithout(passed, bytes.toString('latin1'))) return `what passes is not what came, less some of it: ${JSON.stringify(passed)}`;
  const usage = targets.usageIn(bytes);
  if (usage !== null && !isUsage(usage)) return `usageIn answers ${JSON.stringify(usage)}`;
  const tail = targets.createTail();
  for (const piece of pieces(bytes, cuts)) tail.push(piece);
  const tailUsage = targets.usageIn(tail.bytes());
  if (JSON.stringify(tailUsage) !== JSON.stringify(usage)) return `usageIn reads ${JSON.stringify(usage)} from the whole and ${JSON.stringify(tailUsage)} from its pieces`;
  return null;
}

function scan(chunks: Iterable<Buffer>, targets: Targets): string {
  const scanner = targets.createSseScanner();
  let tokens = 0;
  for (const chunk of chunks) {
    const more = scanner.push(chunk);
    if (!Number.isSafeInteger(more) || more < 0 || more > chunk.length) return `push answers ${more} of ${chunk.length} bytes`;
    tokens += more;
  }
  const usage = scanner.usage();
  if (usage !== null && !isUsage(usage)) return `usage() answers ${JSON.stringify(usage)}`;
  return JSON.stringify({ tokens, usage, failed: scanner.failed(), atBoundary: scanner.atBoundary() });
}

/** What goes on to a client that did not ask for usage. */
function passedOf(chunks: Iterable<Buffer>, targets: Targets): string {
  const scanner = targets.createSseScanner({ hideUsage: true });
  let out = '';
  for (const chunk of chunks) {
    scanner.push(chunk);
    out += scanner.passed().toString('latin1');
  }
  return out + scanner.rest().toString('latin1');
}

/** `part` can be made of `whole` by leaving characters out. */
function isWithout(part: string, whole: string): boolean {
  let at = 0;
  for (const character of part) {
    at = whole.indexOf(character, at) + 1;
    if (at === 0) return false;
  }
  return true;
}

function isUsage({ promptTokens, cachedTokens, outputTokens }: Usage): boolean {
  return [promptTokens, cachedTokens, outputTokens].every((count) => Number.isSafeInteger(count) && count >= 0) && cachedTokens <= promptTokens;
}

function ofRequest({ bytes, endpoint }: FuzzInput, targets: Targets): string | null {
  const reading = targets.readInferenceRequest(endpoint, bytes);
  if (reading.kind === 'bad') return typeof reading.message === 'string' && reading.message !== '' ? null : 'refused without a reason';
  if (endpoint === 'opaque') return null;
  const { model, promptBytes, promptTokens, maxOutputTokens, usageOptions } = reading.request;
  const before = JSON.parse(bytes.toString()) as Record<string, unknown>;
  if (model !== (before['model'] ?? null)) return `the model is ${JSON.stringify(before['model'])}, read was ${JSON.stringify(model)}`;
  for (const [name, count] of Object.entries({ promptBytes, promptTokens, maxOutputTokens })) {
    if (count !== null && (!Number.isSafeInteger(count) || count < 0)) return `${name} is ${count}`;
  }
  // What is written shorter than it is (\u0000, tools written out anew) is still no more than some times the body.
  if (promptBytes > 6 * bytes.length) return `promptBytes is ${promptBytes} of a body of ${bytes.length}`;

  if (usageOptions !== false) {
    const asked = JSON.parse(targets.withUsageAsked(bytes, usageOptions).toString()) as Record<string, unknown>;
    const wanted = { ...before, stream_options: { ...usageOptions, include_usage: true } };
    if (JSON.stringify({ ...asked, stream_options: 0 }) !== JSON.stringify({ ...wanted, stream_options: 0 }) || JSON.stringify(asked['stream_options']) !== JSON.stringify(wanted.stream_options)) return `withUsageAsked makes ${JSON.stringify(asked)}`;
  }
  if (model === null) return null;
  const renamed = targets.withModelName(bytes, OTHER_NAME);
  const after = JSON.parse(renamed.toString()) as Record<string, unknown>;
  if (after['model'] !== OTHER_NAME) return `withModelName left the model ${JSON.stringify(after['model'])}`;
  if (JSON.stringify({ ...after, model: 0 }) !== JSON.stringify({ ...before, model: 0 })) return `withModelName changed more than the model: ${renamed.toString()}`;
  return differsOnlyInStrings(bytes, renamed, Buffer.from(JSON.stringify(OTHER_NAME))) ? null : `withModelName changed bytes beside the model: ${renamed.toString()}`;
}

/** `after` is `before` with some of its JSON strings replaced by `replacement`, and every other byte where it was. */
function differsOnlyInStrings(before: Buffer, after: Buffer, replacement: Buffer): boolean {
  let at = 0;
  for (let from = 0; ; ) {
    const next = after.indexOf(replacement, from);
    const kept = after.subarray(from, next < 0 ? after.length : next);
    if (!before.subarray(at, at + kept.length).equals(kept)) return false;
    at += kept.length;
    if (next < 0) return at === before.length;
    const string = /^"(?:[^"\\]|\\.)*"/s.exec(before.toString('latin1', at))?.[0];
    if (string === undefined) return false;
    at += string.length;
    from = next + replacement.length;
  }
}

function* pieces(bytes: Buffer, cuts: readonly number[]): Generator<Buffer> {
  let from = 0;
  for (const cut of cuts) {
    yield bytes.subarray(from, cut);
    from = cut;
  }
  yield bytes.subarray(from);
}
