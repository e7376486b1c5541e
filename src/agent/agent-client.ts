// Speaks agent/PROTOCOL.md over the Unix socket: one function per route, answers checked before they are believed.
import { Pool } from 'undici';
import { z } from 'zod';
import type { LeaseLine } from './lease-stream.ts';
import { readLeaseLines } from './lease-stream.ts';

/** The agent refused or could not be understood. `status` is `null` where no answer came. */
export class AgentError extends Error {
  override name = 'AgentError';
  readonly status: number | null;
  constructor(message: string, status: number | null, options?: ErrorOptions) {
    super(message, options);
    this.status = status;
  }
}

const deviceSchema = z.object({ device: z.string(), controls: z.array(z.string()) });
const devicesSchema = z.object({ devices: z.array(deviceSchema) });
const resultSchema = z.object({
  device: z.string(),
  demand_mhz: z.number().nullish(),
  target_mhz: z.number().nullish(),
  status: z.enum(['applied', 'deferred', 'failed', 'stuck']),
});
const targetsAnswerSchema = z.object({ results: z.array(resultSchema) });
const problemSchema = z.object({ title: z.string().optional(), detail: z.string().optional() });

export type AgentDevice = z.output<typeof deviceSchema>;
export type TargetResult = z.output<typeof resultSchema>;

export interface Target {
  readonly devices: readonly string[];
  readonly clock_mhz: number | null;
  readonly hold_ms: number;
}

export interface Lease {
  readonly leaseId: string;
  readonly epoch: number;
  readonly ttlMs: number;
  /** Closes the life-line; the agent then lets go. */
  abandon(): void;
}

export interface AgentClient {
  devices(): Promise<readonly AgentDevice[]>;
  /** `onLine` hears of heartbeats, `onEnd` once when the life-line ends, whoever ended it. */
  lease(request: { readonly holder: string; readonly devices: readonly string[]; readonly ttlMs: number }, onLine: () => void, onEnd: (why: string) => void): Promise<Lease>;
  putTargets(lease: Lease, seq: number, targets: readonly Target[]): Promise<readonly TargetResult[]>;
  release(lease: Lease): Promise<void>;
  close(): Promise<void>;
}

/** Targets are answered after the driver's calls, 10–20 ms each with outliers of hundreds; longer is a hung agent. */
const ANSWER_MS_MAX = 2_000;
/** More than any node has devices; a bound for what is read into memory. */
const ANSWER_BYTES_MAX = 1_048_576;

export function createAgentClient(socketPath: string): AgentClient {
  // Two at most are in use: the life-line and one request.
  const pool = new Pool('http://paceline-agent', { socketPath, connections: 3, pipelining: 1, headersTimeout: 0, bodyTimeout: 0, connectTimeout: ANSWER_MS_MAX, allowH2: false });

  async function call(method: 'GET' | 'PUT' | 'DELETE', path: string, body?: unknown): Promise<unknown> {
    try {
      const answer = await pool.request({
        method,
        path,
        signal: AbortSignal.timeout(ANSWER_MS_MAX),
        ...(body === undefined ? {} : { body: JSON.stringify(body), headers: ['content-type', 'application/json'] }),
      });
      const text = await boundedText(answer.body as AsyncIterable<Buffer>);
      if (answer.statusCode >= 300) throw refusal(method, path, answer.statusCode, text);
      return text === '' ? null : JSON.parse(text);
    } catch (error) {
      throw asAgentError(error, method, path);
    }
  }

  async function lease(request: Parameters<AgentClient['lease']>[0], onLine: () => void, onEnd: (why: string) => void): Promise<Lease> {
    const body = JSON.stringify({ holder: request.holder, devices: request.devices, ttl_ms: request.ttlMs });
    const abort = new AbortController();
    const tooLate = setTimeout(() => abort.abort(new Error(`no lease within ${ANSWER_MS_MAX} ms`)), ANSWER_MS_MAX);
    try {
      const answer = await pool.request({ method: 'POST', path: '/v1/leases', signal: abort.signal, body, headers: ['content-type', 'application/json'] });
      if (answer.statusCode !== 201) throw refusal('POST', '/v1/leases', answer.statusCode, await boundedText(answer.body as AsyncIterable<Buffer>));
      return await new Promise<Lease>((resolve, reject) => {
        readLeaseLines(answer.body, {
          onLine: (line: LeaseLine) => {
            if (line.type === 'granted') resolve({ leaseId: line.lease_id, epoch: line.epoch, ttlMs: line.ttl_ms, abandon: () => abort.abort(new Error('lease abandoned')) });
            onLine();
          },
          onEnd: (why) => {
            reject(new AgentError(`the lease ended before it began: ${why}`, null));
            onEnd(why);
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
    devices: async () => devicesSchema.parse(await call('GET', '/v1/devices')).devices,
    lease,
    putTargets: async ({ leaseId, epoch }, seq, targets) => targetsAnswerSchema.parse(await call('PUT', `/v1/leases/${leaseId}/targets`, { epoch, seq, targets })).results,
    release: async ({ leaseId }) => {
      await call('DELETE', `/v1/leases/${leaseId}`);
    },
    close: () => pool.destroy(),
  };
}

function refusal(method: string, path: string, status: number, text: string): AgentError {
  let said = text.slice(0, 200);
  try {
    const problem = problemSchema.parse(JSON.parse(text));
    said = problem.detail ?? problem.title ?? said;
  } catch {
    // Not a problem document: what it said stands as it is.
  }
  return new AgentError(`${method} ${path} was answered ${status}: ${said}`, status);
}

function asAgentError(error: unknown, method: string, path: string): AgentError {
  if (error instanceof AgentError) return error;
  return new AgentError(`${method} ${path}: ${error instanceof Error ? error.message : String(error)}`, null, { cause: error });
}

async function boundedText(body: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > ANSWER_BYTES_MAX) throw new Error(`more than ${ANSWER_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
