// An input file of a batch: cut into lines as its bytes come, and each line checked. What is wrong is told by line number.
import type { LineError } from './batch-record.ts';
import { topLevelValues } from '../json-members.ts';
import { jsonText, shown } from './shown.ts';

/** One request of a batch, as its file has it. */
export interface InputLine {
  /** From 1. */
  readonly line: number;
  readonly customId: string;
  /** JSON, what is sent. */
  readonly body: string;
}

/** Errors that are told of one file; the rest of it is not looked at. */
export const LINE_ERRORS_MAX = 100;
const CUSTOM_ID_CHARACTERS_MAX = 512;

export interface LineLimits {
  readonly requestsMax: number;
  /** Of one line: what the gateway takes as a body. */
  readonly lineBytesMax: number;
}

export interface LineReader {
  /** Lines that became whole, in order. */
  push(bytes: Buffer): InputLine[];
  /** The last line, which may have no line end. */
  end(): InputLine[];
  readonly errors: readonly LineError[];
  /** Nothing more need be read: there are too many errors, or too many lines. */
  readonly full: () => boolean;
  readonly count: () => number;
}

export function createLineReader(endpoint: string, limits: LineLimits): LineReader {
  const errors: LineError[] = [];
  const customIds = new Set<string>();
  let open: Buffer[] = [];
  let openBytes = 0;
  let lineNumber = 0;
  let count = 0;
  let tooMany = false;
  const full = (): boolean => tooMany || errors.length >= LINE_ERRORS_MAX;

  function close(): InputLine[] {
    lineNumber += 1;
    const bytes = openBytes;
    const text = bytes > limits.lineBytesMax ? '' : Buffer.concat(open).toString('utf8').trim();
    open = [];
    openBytes = 0;
    if (bytes > limits.lineBytesMax) {
      errors.push({ code: 'line_too_large', line: lineNumber, param: null, message: `The line has ${bytes} bytes; the gateway takes ${limits.lineBytesMax}.` });
      return [];
    }
    if (text === '') return [];
    count += 1;
    if (count > limits.requestsMax) {
      tooMany = true;
      errors.push({ code: 'too_many_requests', line: lineNumber, param: null, message: `The file has more than the ${limits.requestsMax} requests that a batch may have.` });
      return [];
    }
    const checked = checkLine(text, endpoint, customIds);
    if (checked.kind === 'bad') {
      errors.push({ ...checked.error, line: lineNumber });
      return [];
    }
    customIds.add(checked.customId);
    return [{ line: lineNumber, customId: checked.customId, body: checked.body }];
  }

  return {
    push(bytes) {
      const lines: InputLine[] = [];
      let from = 0;
      for (let at = bytes.indexOf(10); at >= 0 && !full(); at = bytes.indexOf(10, from)) {
        keep(bytes.subarray(from, at));
        from = at + 1;
        lines.push(...close());
      }
      if (!full()) keep(bytes.subarray(from));
      return lines;
    },
    end: () => (openBytes === 0 || full() ? [] : close()),
    errors,
    full,
    count: () => count,
  };

  /** What is too long anyway is counted and not kept. */
  function keep(bytes: Buffer): void {
    openBytes += bytes.length;
    if (openBytes <= limits.lineBytesMax) open.push(bytes);
    else open = [];
  }
}

type Checked = { readonly kind: 'ok'; readonly customId: string; readonly body: string } | { readonly kind: 'bad'; readonly error: Omit<LineError, 'line'> };

function checkLine(text: string, endpoint: string, customIds: ReadonlySet<string>): Checked {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return bad('invalid_json_line', null, 'This line is not parseable as valid JSON.');
  }
  if (!isObject(json)) return bad('invalid_json_line', null, 'This line is no JSON object.');
  const { custom_id: customId, method, url, body } = json;
  if (customId === undefined) return bad('missing_required_parameter', 'custom_id', "Missing required parameter: 'custom_id'.");
  if (typeof customId !== 'string' || customId === '' || customId.length > CUSTOM_ID_CHARACTERS_MAX) {
    return bad('invalid_custom_id', 'custom_id', `custom_id: got ${shown(customId)}, want a string of 1 to ${CUSTOM_ID_CHARACTERS_MAX} characters.`);
  }
  // Half of a pair of surrogates is no character: no store would give it back as it came.
  if (!customId.isWellFormed()) return bad('invalid_custom_id', 'custom_id', `custom_id: got ${shown(customId)}, want well-formed Unicode.`);
  if (customIds.has(customId)) return bad('duplicate_custom_id', 'custom_id', `The custom_id ${shown(customId)} is used on an earlier line; want a different one on each.`);
  if (method === undefined) return bad('missing_required_parameter', 'method', "Missing required parameter: 'method'.");
  if (method !== 'POST') return bad('invalid_method', 'method', `method: got ${shown(method)}, want 'POST'.`);
  if (url === undefined) return bad('missing_required_parameter', 'url', "Missing required parameter: 'url'.");
  if (url !== endpoint) return bad('invalid_url', 'url', `url: got ${shown(url)}, want '${endpoint}', the endpoint of the batch.`);
  if (body === undefined) return bad('missing_required_parameter', 'body', "Missing required parameter: 'body'.");
  if (!isObject(body)) return bad('invalid_body', 'body', `body: got ${shown(body)}, want a JSON object.`);
  if (typeof body['model'] !== 'string' || body['model'] === '') return bad('missing_required_parameter', 'body.model', `body.model: got ${shown(body['model'])}, want the name of a model.`);
  if (body['stream'] === true) return bad('invalid_body', 'body.stream', 'body.stream: got true; answers of a batch are not streamed.');
  if (jsonText(body) === null) return bad('invalid_body', 'body', 'body: nested too deeply.');
  // As it was written: printed anew, a seed of 64 bits would be another number.
  const bytes = Buffer.from(text);
  const { start, end } = topLevelValues(bytes, 'body').at(-1) as { start: number; end: number };
  return { kind: 'ok', customId, body: bytes.toString('utf8', start, end) };
}

function bad(code: string, param: string | null, message: string): Checked {
  return { kind: 'bad', error: { code, param, message } };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
