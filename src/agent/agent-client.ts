// Speaks agent/PROTOCOL.md: one function per route, answers checked before they are believed.
import { z } from 'zod';
import type { AgentAddress } from './connection.ts';
import { ANSWER_MS_MAX, AgentError, asAgentError, callFor, createConnection } from './connection.ts';
import type { LeaseEnd, LeaseLine } from './lease-stream.ts';
import { readLeaseLines } from './lease-stream.ts';

const deviceSchema = z.object({ device: z.string(), controls: z.array(z.string()) });
const devicesSchema = z.object({ devices: z.array(deviceSchema) });
const readySchema = z.object({ mode: z.string().optional() });
// Words that a newer agent may say are let through: what is not known to follow counts as not following.
const resultSchema = z.object({
  device: z.string(),
  demand_mhz: z.number().nullish(),
  target_mhz: z.number().nullish(),
  demand_mw: z.number().nullish(),
  target_mw: z.number().nullish(),
  clamped: z.string().nullish(),
  control: z.string().nullish(),
  status: z.string(),
});
const targetsAnswerSchema = z.object({ results: z.array(resultSchema) });
const problemSchema = z.object({ title: z.string().optional(), detail: z.string().optional() });

export type AgentDevice = z.output<typeof deviceSchema>;
export type TargetResult = z.output<typeof resultSchema>;

/** Of one control: a control that is not named keeps its demand. */
export type Target = { readonly devices: readonly string[]; readonly hold_ms: number } & ({ readonly clock_mhz: number | null } | { readonly power_limit_mw: number | null });

export interface Lease {
  readonly leaseId: string;
  readonly epoch: number;
  readonly ttlMs: number;
  /** Closes the life-line; the agent then lets go. */
  abandon(): void;
}

export interface AgentClient {
  devices(): Promise<readonly AgentDevice[]>;
  /** Does it say that it only reads? */
  observes(): Promise<boolean>;
  /** `onLine` hears of heartbeats, `onEnd` once when the life-line ends, whoever ended it. */
  lease(request: { readonly holder: string; readonly devices: readonly string[]; /** Default: the clocks. */ readonly controls?: readonly string[]; readonly ttlMs: number }, onLine: () => void, onEnd: (end: LeaseEnd) => void): Promise<Lease>;
  putTargets(lease: Lease, seq: number, targets: readonly Target[]): Promise<readonly TargetResult[]>;
  release(lease: Lease): Promise<void>;
  close(): Promise<void>;
}

export function createAgentClient(address: AgentAddress): AgentClient {
  // Two at most are in use: the life-line and one request.
  const connection = createConnection(address, { connectionsMax: 3, reasonOf });

  const call = <Shape extends z.ZodType>(shape: Shape, method: 'GET' | 'PUT', path: string, body?: unknown): Promise<z.output<Shape>> => callFor(connection, shape, { method, path, body, isNot: 'what is not the protocol' });

  async function lease(request: Parameters<AgentClient['lease']>[0], onLine: () => void, onEnd: (end: LeaseEnd) => void): Promise<Lease> {
    const { holder, devices, controls, ttlMs } = request;
    const body = { holder, devices, ...(controls === undefined ? {} : { controls }), ttl_ms: ttlMs };
    const abort = new AbortController();
    const tooLate = setTimeout(() => abort.abort(new Error(`no lease within ${ANSWER_MS_MAX} ms`)), ANSWER_MS_MAX);
    try {
      const answer = await connection.open('POST', '/v1/leases', abort.signal, body);
      if (answer.statusCode !== 201) throw await connection.refusal('POST', '/v1/leases', answer);
      return await new Promise<Lease>((resolve, reject) => {
        readLeaseLines(answer.body, {
          onLine: (line: LeaseLine) => {
            if (line.type === 'granted') resolve({ leaseId: line.lease_id, epoch: line.epoch, ttlMs: line.ttl_ms, abandon: () => abort.abort(new Error('lease abandoned')) });
            onLine();
          },
          onEnd: (end) => {
            reject(new AgentError(`the lease ended before it began: ${end.why}`, null));
            onEnd(end);
          },
        });
      });
    } catch (error) {
      throw asAgentError(error, 'POST', '/v1/leases');
    } finally {
      clearTimeout(tooLate);
    }
  }

  return {
    devices: async () => (await call(devicesSchema, 'GET', '/v1/devices')).devices,
    // An agent that restores is not ready, and is not one that only reads.
    observes: async () => (await call(readySchema, 'GET', '/readyz').catch(() => null))?.mode === 'observe',
    lease,
    putTargets: async ({ leaseId, epoch }, seq, targets) => (await call(targetsAnswerSchema, 'PUT', `/v1/leases/${leaseId}/targets`, { epoch, seq, targets })).results,
    release: async ({ leaseId }) => {
      await connection.call('DELETE', `/v1/leases/${leaseId}`);
    },
    close: () => connection.close(),
  };
}

function reasonOf(text: string): string | null {
  try {
    const problem = problemSchema.parse(JSON.parse(text));
    return problem.detail ?? problem.title ?? null;
  } catch {
    return null;
  }
}
