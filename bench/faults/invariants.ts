// What must hold of a fault schedule, whatever was broken. Pure: an observation goes in, what was violated comes out. Every
// rule has a counterexample in test/faults/invariants.test.ts.
import type { Outcome, Seen } from './checking-client.ts';
import type { Fault, PlannedRequest, TargetKind } from './schedule.ts';

/** What a model server says of a request, by its id; the first of the ends counts. */
export interface Execution {
  readonly requestId: string;
  readonly replica: string;
  readonly acceptedAtMs: number;
  readonly firstTokenAtMs: number | null;
  /** `null`: the server died meanwhile. */
  readonly end: { readonly kind: 'finished' | 'cancelled' | 'refused' | 'broken'; readonly atMs: number } | null;
}

/** A fault as it took place. */
export interface Happened extends Pick<Fault, 'target' | 'index' | 'kind'> {
  readonly fromMs: number;
  readonly toMs: number;
}

export interface Observation {
  readonly requests: readonly PlannedRequest[];
  /** Every end that a client has seen, in order. */
  readonly seen: readonly Seen[];
  /** Sent when all was mended. */
  readonly tail: ReadonlySet<string>;
  readonly executions: readonly Execution[];
  readonly faults: readonly Happened[];
  /** Of a replica, by the gateways' name for it. */
  readonly replicaOf: ReadonlyMap<string, { readonly target: TargetKind; readonly index: number }>;
  /** What the gateways and the servers held when all requests had ended, and time enough had passed. */
  readonly held: readonly { readonly where: string; readonly what: string; readonly count: number }[];
  /** How long the devices, of which so many were lowered, took to be at their defaults after their holders or their agent had gone; `null`: longer than was waited. */
  readonly clocks: readonly { readonly after: string; readonly lowered: number; readonly tookMs: number | null }[];
  /** Gateways that did not see all replicas up again. */
  readonly notRecovered: readonly string[];
  readonly troubles: readonly string[];
  /** How long a fault may still be felt after it: probes have to see that a server is back. */
  readonly feltMs: number;
}

export type Invariant = 'one-outcome' | 'no-hang' | 'exact-answer' | 'explained' | 'executed-once' | 'logs-agree' | 'no-slot-leaked' | 'no-clock-left-locked' | 'recovers' | 'no-process-dies';

export interface Violation {
  readonly invariant: Invariant;
  readonly what: string;
}

export function violationsOf(observation: Observation): readonly Violation[] {
  return [...outcomes(observation), ...explanations(observation), ...executions(observation), ...afterwards(observation)];
}

/** One end for each request, none of them a silence, and nothing in an answer that is not its own. */
function outcomes({ requests, seen }: Observation): Violation[] {
  const byId = Map.groupBy(seen, ({ request }) => request.id);
  return requests.flatMap(({ id }): Violation[] => {
    const ends = byId.get(id) ?? [];
    const found: Violation[] = ends.length === 1 ? [] : [{ invariant: 'one-outcome', what: `${id}: ${ends.length} outcomes (${ends.map(({ outcome }) => outcome.kind).join(', ')})` }];
    for (const { outcome, gateway, replica } of ends) {
      if (outcome.kind === 'hung') found.push({ invariant: 'no-hang', what: `${id} at gateway-${gateway}: no end after ${Math.round(outcome.afterMs)} ms` });
      if (outcome.kind === 'malformed') found.push({ invariant: 'exact-answer', what: `${id} from ${replica ?? `gateway-${gateway}`}: ${outcome.why}` });
    }
    return found;
  });
}

/**
 * What went wrong for a client was broken by the schedule, at that time: a cut connection by its gateway, or where an answer
 * without a stream had begun by its server; a stream that breaks off by its server; an error by any server. Agents and Redis
 * excuse nothing.
 */
function explanations({ seen, faults, replicaOf, tail, feltMs }: Observation): Violation[] {
  return seen.flatMap((one): Violation[] => {
    const during = (fault: Happened, feltAfterMs: number): boolean => fault.fromMs <= one.endedAtMs && fault.toMs + feltAfterMs >= one.sentAtMs;
    const ofGateway = faults.some((fault) => fault.target === 'gateway' && fault.index === one.gateway && during(fault, 0));
    const server = one.replica === null ? undefined : replicaOf.get(one.replica);
    const ofServer = server !== undefined && faults.some((fault) => fault.target === server.target && fault.index === server.index && during(fault, 0));
    const ofAnyServer = faults.some((fault) => (fault.target === 'replica' || fault.target === 'stub' || fault.target === 'gateway') && during(fault, feltMs));
    const inTail = tail.has(one.request.id);
    if (!inTail && isExplained(one, { ofGateway, ofServer, ofAnyServer })) return [];
    if (inTail && one.outcome.kind === 'whole') return [];
    return [{ invariant: inTail ? 'recovers' : 'explained', what: `${one.request.id} at gateway-${one.gateway}${one.replica === null ? '' : ` from ${one.replica}`}: ${told(one.outcome)}, and nothing ${inTail ? 'is broken any more' : 'was broken that explains it'}` }];
  });
}

function isExplained({ outcome, request }: Seen, by: { readonly ofGateway: boolean; readonly ofServer: boolean; readonly ofAnyServer: boolean }): boolean {
  switch (outcome.kind) {
    case 'whole':
    case 'left':
    // Told of by rules of their own.
    case 'hung':
    case 'malformed':
      return true;
    case 'unreachable':
      return by.ofGateway;
    case 'cut':
      return by.ofGateway || (outcome.at === 'body' && !request.stream && by.ofServer);
    case 'broken-off':
      return by.ofServer;
    case 'refused':
      return by.ofAnyServer;
  }
}

/** A request is given to a second server only where the first has refused it; and what a client holds is what a server has said. */
function executions({ seen, executions: all }: Observation): Violation[] {
  const byId = Map.groupBy(all, ({ requestId }) => requestId);
  const twice = [...byId].flatMap(([id, ofOne]): Violation[] => {
    const inOrder = ofOne.toSorted((one, other) => one.acceptedAtMs - other.acceptedAtMs);
    const before = inOrder.slice(0, -1).find(({ end }) => end?.kind !== 'refused');
    return before === undefined ? [] : [{ invariant: 'executed-once', what: `${id}: taken by ${inOrder.map(({ replica, firstTokenAtMs, end }) => `${replica} (${firstTokenAtMs === null ? 'no output' : 'output'}, ${end?.kind ?? 'died'})`).join(', then by ')}` }];
  });
  const disagreeing = seen.flatMap(({ request: { id }, replica, outcome }): Violation[] => {
    if (outcome.kind !== 'whole') return [];
    const finished = (byId.get(id) ?? []).filter(({ end, replica: by }) => end?.kind === 'finished' && by === replica);
    return finished.length === 1 ? [] : [{ invariant: 'logs-agree', what: `${id}: whole from ${replica ?? 'nobody'}, which has finished it ${finished.length} times` }];
  });
  return [...twice, ...disagreeing];
}

function afterwards({ held, clocks, notRecovered, troubles }: Observation): Violation[] {
  return [
    ...held.filter(({ count }) => count !== 0).map(({ where, what, count }): Violation => ({ invariant: 'no-slot-leaked', what: `${where}: ${what} is ${count} when nothing is under way` })),
    ...clocks.filter(({ tookMs }) => tookMs === null).map(({ after }): Violation => ({ invariant: 'no-clock-left-locked', what: `after ${after} the devices were not at their default clocks in time` })),
    ...notRecovered.map((gateway): Violation => ({ invariant: 'recovers', what: `${gateway} did not see all replicas up again` })),
    ...troubles.map((message): Violation => ({ invariant: 'no-process-dies', what: message })),
  ];
}

function told(outcome: Outcome): string {
  switch (outcome.kind) {
    case 'refused':
      return `${outcome.status} ${outcome.code}`;
    case 'broken-off':
      return `broken off with ${outcome.code} after ${outcome.chars} characters`;
    case 'cut':
      return `cut in its ${outcome.at}`;
    default:
      return outcome.kind;
  }
}
