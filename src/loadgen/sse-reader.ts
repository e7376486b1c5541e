// Server-sent events out of bytes that come cut anywhere. Gives each event's data; ids, names and retries are not ours to use.
// Source: WHATWG HTML, "Server-sent events", 9.2.5–9.2.6.
import { StringDecoder } from 'node:string_decoder';

export interface SseReader {
  /** Calls back once for every event that is complete now. Throws `SseTooLargeError`. */
  readonly push: (chunk: Buffer) => void;
}

export class SseTooLargeError extends Error {
  override name = 'SseTooLargeError';
}

/** What is left unfinished when the bytes end is dropped, as the standard has it. */
export function createSseReader({ onData, eventCharsMax }: { readonly onData: (data: string) => void; readonly eventCharsMax: number }): SseReader {
  // Keeps the bytes of a character that is cut in two.
  const decoder = new StringDecoder('utf8');
  /** An unfinished line. */
  let rest = '';
  /** Data lines of the event at hand, `null` before its first. */
  let data: string | null = null;
  let afterCr = false;
  let atStart = true;

  function takeLine(line: string): void {
    if (line === '') {
      if (data !== null) onData(data);
      data = null;
      return;
    }
    // Comments (`: keep-alive`) and other fields fall through here.
    if (!line.startsWith('data')) return;
    let value: string;
    if (line.length === 4) value = '';
    else if (line[4] !== ':') return;
    else value = line.slice(line[5] === ' ' ? 6 : 5);
    data = data === null ? value : `${data}\n${value}`;
  }

  return {
    push: (chunk) => {
      let text = decoder.write(chunk);
      if (text === '') return;
      if (atStart && text.startsWith('\uFEFF')) text = text.slice(1);
      atStart = false;
      // A CR ended its line already when it came last; the LF that may follow belongs to it.
      if (afterCr && text.startsWith('\n')) text = text.slice(1);
      afterCr = text === '' ? false : text.endsWith('\r');
      if (text.includes('\r')) text = text.replaceAll(/\r\n?/g, '\n');
      let from = 0;
      for (let end = text.indexOf('\n'); end !== -1; end = text.indexOf('\n', from)) {
        const line = text.slice(from, end);
        takeLine(rest === '' ? line : rest + line);
        rest = '';
        from = end + 1;
        checkSize();
      }
      rest += text.slice(from);
      checkSize();
    },
  };

  function checkSize(): void {
    const held = rest.length + (data?.length ?? 0);
    if (held > eventCharsMax) throw new SseTooLargeError(`an event of more than ${eventCharsMax} characters`);
  }
}
