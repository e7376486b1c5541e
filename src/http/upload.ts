// A file that comes as multipart/form-data, handed on piece by piece: it may be larger than what anybody wants in memory.
import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Busboy } from '@fastify/busboy';

export type UploadReading<Taken> =
  | { readonly kind: 'ok'; readonly file: { readonly filename: string; readonly taken: Taken } | null; readonly fields: ReadonlyMap<string, string> }
  | { readonly kind: 'bad'; readonly message: string; readonly taken: Taken | null };

const LIMITS = { fieldNameSize: 100, fieldSize: 1_000, fields: 20, files: 1, parts: 21, headerPairs: 20, headerSize: 8_192 };

type Part<Taken> = { readonly filename: string; readonly stream: Readable; readonly taken: Promise<Taken> };

/** `take` gets the part named `file` and may stop reading it; the rest is passed over. */
export async function readUpload<Taken>(incoming: IncomingMessage, take: (bytes: AsyncIterable<Buffer>) => Promise<Taken>): Promise<UploadReading<Taken>> {
  const fields = new Map<string, string>();
  const parts: Part<Taken>[] = [];
  const problems: string[] = [];
  try {
    incoming.on('error', ignore);
    const parser = new Busboy({ headers: incoming.headers as never, limits: LIMITS });
    parser.on('error', ignore);
    parser.on('field', (name, value, nameCut, valueCut) => {
      if (nameCut || valueCut) problems.push(`the field '${name}' is too long`);
      fields.set(name, value);
    });
    parser.on('file', (name, stream, filename) => {
      const readable = stream as unknown as Readable;
      readable.on('error', ignore);
      if (name === 'file' && parts.length === 0) parts.push({ filename: filename || 'file', stream: readable, taken: taking(readable, take) });
      else {
        problems.push(name === 'file' ? 'file: got several, want one' : `the part '${name}' is a file; only 'file' may be one`);
        readable.resume();
      }
    });
    for (const limit of ['partsLimit', 'filesLimit', 'fieldsLimit'] as const) parser.on(limit, () => problems.push('the form has too many parts'));
    await pipeline(incoming, parser);
  } catch (error) {
    // A part whose form has broken off would else wait for its end for ever.
    for (const { stream } of parts) stream.destroy(error instanceof Error ? error : undefined);
    problems.push(`want a whole multipart/form-data body: ${error instanceof Error ? error.message : String(error)}`);
  }
  const [part] = parts;
  const [problem] = problems;
  // Of a form that broke off the part may have failed with it; what is wrong has been said then.
  if (problem !== undefined) return { kind: 'bad', message: problem, taken: part === undefined ? null : await part.taken.catch(() => null) };
  return { kind: 'ok', file: part === undefined ? null : { filename: part.filename, taken: await part.taken }, fields };
}

function taking<Taken>(stream: Readable, take: (bytes: AsyncIterable<Buffer>) => Promise<Taken>): Promise<Taken> {
  // What is not taken must still be passed over: destroyed, it would hold up the rest of the form for ever.
  const taken = take(stream.iterator({ destroyOnReturn: false })).finally(() => stream.resume());
  // Heard of once the form has ended.
  taken.catch(() => {});
  return taken;
}

/** Told by what waits for the form; unheard, the loss of a client would be an uncaught error here. */
function ignore(): void {}
