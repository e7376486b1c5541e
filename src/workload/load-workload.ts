// From what the command line names to a workload: the only file here that touches the disk.
import { readFile, readdir, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { unreachable } from '../core/unreachable.ts';
import type { Workload } from './request.ts';
import type { SloClass } from './slo-classes.ts';
import type { Synthetic } from './synthetic.ts';
import { readAzureTrace } from './azure-trace.ts';
import { TRACE_BYTES_MAX } from './limits.ts';
import { readMooncakeTrace } from './mooncake-trace.ts';
import { firstBusyS, readServeGenClient, sampleServeGen } from './servegen.ts';
import type { ServeGenClient } from './servegen.ts';
import { readSloClasses } from './slo-classes.ts';
import { makeSynthetic } from './synthetic.ts';
import { takeWindow } from './window.ts';
import type { Window } from './window.ts';
import { WorkloadError, quoted } from './workload-error.ts';

export type WorkloadSource =
  | { readonly kind: 'azure' | 'mooncake'; readonly file: string }
  /** `chunk`: a number, a file's name up to `-trace.csv`, or nothing for all chunks that have both files. */
  | { readonly kind: 'servegen'; readonly directory: string; readonly chunk?: string }
  | ({ readonly kind: 'synthetic' } & Omit<Synthetic, 'seed' | 'durationS'>);

/** `azure:FILE`, `mooncake:FILE`, `servegen:DIR` or `servegen:DIR:CHUNK`. */
export function parseTraceSource(text: string): WorkloadSource {
  const colon = text.indexOf(':');
  const [kind, rest] = [text.slice(0, colon), text.slice(colon + 1)];
  if (colon > 0 && rest !== '') {
    if (kind === 'azure' || kind === 'mooncake') return { kind, file: rest };
    if (kind === 'servegen') {
      const [, directory = rest, chunk] = /^(.*):([^:/\\]+)$/.exec(rest) ?? [];
      return { kind, directory, ...(chunk === undefined ? {} : { chunk }) };
    }
  }
  throw new WorkloadError(`--trace: got ${quoted(text)}, want azure:FILE, mooncake:FILE or servegen:DIR[:CHUNK]`);
}

/** The part of the workload that `window` names. Throws `WorkloadError` where there is nothing to send. */
export async function loadWorkload(source: WorkloadSource, window: Window, seed: number): Promise<Workload> {
  switch (source.kind) {
    case 'azure':
      return takeWindow(readAzureTrace(await readText(source.file), shortName(source.file)), window);
    case 'mooncake':
      return takeWindow(readMooncakeTrace(await readText(source.file), shortName(source.file)), window);
    case 'servegen':
      return loadServeGen(source, window, seed);
    case 'synthetic': {
      const { fromS = 0, durationS } = window;
      if (durationS === undefined) throw new WorkloadError('a synthetic workload has no end of its own; say --duration SECONDS');
      return takeWindow(makeSynthetic({ ...source, seed, durationS: fromS + durationS }), { ...window, ...(fromS === 0 ? { durationS: Infinity } : {}) });
    }
    default:
      return unreachable(source);
  }
}

export async function loadSloClasses(file: string): Promise<readonly SloClass[]> {
  return readSloClasses(await readText(file), file);
}

async function loadServeGen({ directory, chunk }: { readonly directory: string; readonly chunk?: string }, window: Window, seed: number): Promise<Workload> {
  const { fromS = 0, durationS } = window;
  if (durationS === undefined) throw new WorkloadError('a servegen trace lasts two weeks; say how much of it with --duration SECONDS (and --from)');
  const clients = await readClients(directory, chunk);
  const requests = sampleServeGen(clients, { fromS, durationS, seed });
  const name = `servegen ${clients.length === 1 ? clients[0]?.name : `${clients.length} clients`}`;
  if (requests.length === 0) {
    const nextS = firstBusyS(clients, fromS);
    throw new WorkloadError(`${name}: no requests ${fromS}-${fromS + durationS} s; ${nextS === null ? 'none later either' : `the next ones come from second ${nextS} (--from ${nextS})`}`);
  }
  return takeWindow({ name, requests }, window);
}

async function readClients(directory: string, chunk: string | undefined): Promise<ServeGenClient[]> {
  const names = await readdir(directory).catch((cause: unknown) => {
    throw unreadable(directory, cause);
  });
  const stems = names.filter((name) => /(^|_)chunk-\d+-trace\.csv$/.test(name)).map((name) => name.slice(0, -'-trace.csv'.length)).sort();
  const complete = stems.filter((stem) => names.includes(`${stem}-dataset.json`));
  const wanted = chunk === undefined ? complete : stems.filter((stem) => stem === chunk || new RegExp(`(^|_)chunk-${/^\d+$/.test(chunk) ? chunk : '(?!)'}$`).test(stem));
  if (wanted.length === 0) throw new WorkloadError(`${directory}: no ${chunk === undefined ? 'chunk-N-trace.csv with a chunk-N-dataset.json' : `chunk '${chunk}'`}; complete chunks: ${complete.join(', ') || 'none'}`);
  if (chunk !== undefined && wanted.length > 1) throw new WorkloadError(`${directory}: chunk '${chunk}' may be ${wanted.join(' or ')}; say which`);
  return Promise.all(
    wanted.map(async (stem) => {
      const [traceFile, datasetFile] = [join(directory, `${stem}-trace.csv`), join(directory, `${stem}-dataset.json`)];
      const [traceText, datasetText] = await Promise.all([readText(traceFile), readText(datasetFile)]);
      return readServeGenClient({ name: stem, traceFile, traceText, datasetFile, datasetText });
    }),
  );
}

async function readText(file: string): Promise<string> {
  try {
    const { size } = await stat(file);
    if (size > TRACE_BYTES_MAX) throw new WorkloadError(`${file}: ${size} bytes, more than ${TRACE_BYTES_MAX}; cut the file`);
    return await readFile(file, 'utf8');
  } catch (cause) {
    throw cause instanceof WorkloadError ? cause : unreadable(file, cause);
  }
}

function unreadable(path: string, cause: unknown): WorkloadError {
  const code = (cause as NodeJS.ErrnoException).code;
  const why = code === 'ENOENT' ? 'does not exist' : code === 'EACCES' ? 'may not be read by this user' : code === 'EISDIR' ? 'is a directory, want a file' : `cannot be read (${cause instanceof Error ? cause.message : String(cause)})`;
  return new WorkloadError(`${path}: ${why}`, { cause });
}

function shortName(file: string): string {
  return basename(file).replace(/\.(csv|jsonl|json)$/, '');
}
