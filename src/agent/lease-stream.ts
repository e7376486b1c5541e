// The life-line of a lease: NDJSON lines from the agent for as long as the lease lives.
import type { Readable } from 'node:stream';
import { z } from 'zod';

const lineSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('granted'), lease_id: z.string(), epoch: z.number(), ttl_ms: z.number(), devices: z.array(z.string()) }),
  z.object({ type: z.literal('heartbeat') }),
  z.object({ type: z.literal('ended'), reason: z.string() }),
]);

export type LeaseLine = z.output<typeof lineSchema>;

export interface LeaseEnd {
  readonly why: string;
  /** What the agent gave as its reason; `null` where the stream just ended. */
  readonly reason: string | null;
}

/** The longest line names the devices of a node; beyond this it is no agent that speaks. */
const LINE_CHARACTERS_MAX = 65_536;

/** `onEnd` comes once: at the end of the stream, an `ended` line, an error or a line that is none. */
export function readLeaseLines(body: Readable, listener: { readonly onLine: (line: LeaseLine) => void; readonly onEnd: (end: LeaseEnd) => void }): void {
  let unfinished = '';
  let over = false;
  const end = (why: string, reason: string | null = null): void => {
    if (over) return;
    over = true;
    body.destroy();
    listener.onEnd({ why, reason });
  };
  body.setEncoding('utf8');
  body.on('data', (text: string) => {
    const lines = (unfinished + text).split('\n');
    unfinished = lines.pop() ?? '';
    for (const line of lines) {
      if (over || line.trim() === '') continue;
      const parsed = parse(line);
      if (parsed === null) end(`not a line of the protocol: ${line.slice(0, 80)}`);
      else if (parsed.type === 'ended') end(`the agent ended it (${parsed.reason})`, parsed.reason);
      else listener.onLine(parsed);
    }
    if (unfinished.length > LINE_CHARACTERS_MAX) end(`a line of more than ${LINE_CHARACTERS_MAX} characters`);
  });
  body.on('end', () => end('the agent closed the stream'));
  body.on('error', (error: Error) => end(error.message));
  body.on('close', () => end('the stream closed'));
}

function parse(line: string): LeaseLine | null {
  try {
    const parsed = lineSchema.safeParse(JSON.parse(line));
    return parsed.success ? parsed.data : null;
  } catch {
    return null;
  }
}
