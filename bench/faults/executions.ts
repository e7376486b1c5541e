// What the model servers wrote down of each request, as executions.
import { existsSync, readFileSync } from 'node:fs';
import type { Execution } from './invariants.ts';

export interface Note {
  readonly requestId: string;
  readonly replica: string;
  readonly kind: string;
  readonly atMs: number;
}

/** Of an emulated server's `--request-log`; its replicas are called `node-0` and so on, behind the node's name. */
export function emulatedExecutions(path: string, node: string): Execution[] {
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, 'utf8').split('\n').filter((line) => line !== '');
  const notes = lines.map((line) => JSON.parse(line) as { readonly request_id: string; readonly replica: number; readonly event: string; readonly at_ms: number });
  return executionsOf(notes.map(({ request_id: requestId, replica, event, at_ms: atMs }) => ({ requestId: askedId(requestId), replica: `${node}-${replica}`, kind: event, atMs })));
}

/** As the client wrote it: on its way to a server the gateway gives every id an end of its own. */
export function askedId(serverRequestId: string): string {
  return serverRequestId.replace(/-[0-9a-f]{12}$/, '');
}

/** One for each time a request was taken: what follows belongs to it until it is taken again. */
export function executionsOf(notes: readonly Note[]): Execution[] {
  const executions: { requestId: string; replica: string; acceptedAtMs: number; firstTokenAtMs: number | null; end: Execution['end'] }[] = [];
  const current = new Map<string, (typeof executions)[number]>();
  for (const { requestId, replica, kind, atMs } of notes) {
    const key = `${replica} ${requestId}`;
    if (kind === 'accepted' || kind === 'refused') {
      const begun = { requestId, replica, acceptedAtMs: atMs, firstTokenAtMs: null, end: null };
      executions.push(begun);
      current.set(key, begun);
    }
    const one = current.get(key);
    if (one === undefined) continue;
    if (kind === 'first-token') one.firstTokenAtMs = atMs;
    else if (kind !== 'accepted') one.end ??= { kind: kind as NonNullable<Execution['end']>['kind'], atMs };
  }
  return executions;
}
