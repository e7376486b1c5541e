// The loop that sends each request at its time and gathers what came of it. How a request is sent is given to it.
import type { WorkloadRequest } from '../workload/request.ts';
import type { SloClass } from '../workload/slo-classes.ts';
import type { RequestRecord } from './request-record.ts';
import { meets, recordOf } from './request-record.ts';
import type { Reply } from './send-request.ts';

export interface PlannedRequest {
  readonly request: WorkloadRequest;
  readonly sloClass: SloClass;
}

export interface OpenLoop {
  /** All sent and answered, or cancelled. */
  readonly done: Promise<void>;
  /** Sends nothing more and gives up on what is in flight. */
  readonly cancel: () => void;
  readonly state: () => OpenLoopState;
}

export interface OpenLoopState {
  readonly records: readonly RequestRecord[];
  readonly total: number;
  readonly sent: number;
  readonly inFlight: number;
  readonly completed: number;
  readonly met: number;
  /** Cancelled in flight. */
  readonly unfinished: number;
  /** The first intended time until something ended. */
  readonly lastEndedAtMs: number;
}

/** `setTimeout` counts no further than 2^31 ms; a long pause is slept in pieces. */
const SLEEP_MAX_MS = 3_600_000;

/** Begins at once. `originAtMs`: where the workload's time 0 lies on the clock of `nowMs`. */
export function startOpenLoop(plan: {
  readonly requests: readonly PlannedRequest[];
  readonly originAtMs: number;
  readonly inFlightMax: number;
  readonly nowMs: () => number;
  readonly warn: (message: string) => void;
  /** Calls back once; returns what cancels it. */
  readonly send: (planned: PlannedRequest, index: number, onReply: (reply: Reply) => void) => () => void;
}): OpenLoop {
  const { requests, originAtMs, inFlightMax, nowMs } = plan;
  const records: RequestRecord[] = [];
  const inFlight = new Map<number, () => void>();
  const { promise: done, resolve } = Promise.withResolvers<void>();
  let next = 0;
  let completed = 0;
  let met = 0;
  let unfinished = 0;
  let lastEndedAtMs = originAtMs + (requests[0]?.request.atMs ?? 0);
  let timer: NodeJS.Timeout | undefined;
  let cancelled = false;
  let warnedOfCap = false;

  /** All that are due, then sleeps until the next: after a stall of this process the late ones go out in one burst. */
  function sendDue(): void {
    for (let planned = requests[next]; planned !== undefined; planned = requests[next]) {
      const leftMs = originAtMs + planned.request.atMs - nowMs();
      if (leftMs > 0) {
        timer = setTimeout(sendDue, Math.min(leftMs, SLEEP_MAX_MS));
        return;
      }
      sendOne(planned, next++);
    }
    finishIfDone();
  }

  function sendOne(planned: PlannedRequest, index: number): void {
    const { request, sloClass } = planned;
    const sent = {
      className: sloClass.name,
      slo: sloClass.slo,
      intendedAtMs: originAtMs + request.atMs,
      sentAtMs: nowMs(),
      promptTokens: request.promptTokens,
      outputTokens: request.outputTokens,
    };
    if (inFlight.size >= inFlightMax) {
      if (!warnedOfCap) plan.warn(`${inFlight.size} requests are in flight, the most allowed: further ones are not sent and count as failed`);
      warnedOfCap = true;
      keep(recordOf(sent, { kind: 'failed', reason: 'in-flight-cap', detail: `${inFlightMax} in flight`, endedAtMs: sent.sentAtMs, measured: null }));
      return;
    }
    let ended = false;
    const cancel = plan.send(planned, index, (reply) => {
      ended = true;
      inFlight.delete(index);
      lastEndedAtMs = Math.max(lastEndedAtMs, reply.endedAtMs);
      if (reply.kind === 'cancelled') unfinished++;
      else keep(recordOf(sent, reply));
      finishIfDone();
    });
    if (!ended) inFlight.set(index, cancel);
  }

  function keep(record: RequestRecord): void {
    records.push(record);
    if (record.kind === 'completed') completed++;
    if (meets(record)) met++;
  }

  function finishIfDone(): void {
    if (inFlight.size === 0 && (cancelled || next >= requests.length)) resolve();
  }

  sendDue();
  return {
    done,
    cancel: () => {
      cancelled = true;
      clearTimeout(timer);
      for (const cancel of inFlight.values()) cancel();
      finishIfDone();
    },
    state: () => ({ records, total: requests.length, sent: next, inFlight: inFlight.size, completed, met, unfinished, lastEndedAtMs }),
  };
}
