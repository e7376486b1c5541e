// HTTP to a daemon on this node's Unix socket, or on a loopback port with a bearer token (an ssh tunnel, a sidecar).
// Answers are bounded in time and size; what they mean is for who asks.
import type { Dispatcher } from 'undici';
import { Pool } from 'undici';
import type { z } from 'zod';
import { boundedText } from '../bounded-text.ts';
import { tokenIn } from '../token-file.ts';

export type AgentAddress = { readonly kind: 'socket'; readonly path: string } | { readonly kind: 'tcp'; readonly origin: string; readonly tokenPath: string | null };

/** The daemon refused or could not be understood. `status` is `null` where no answer came. */
export class AgentError extends Error {
  override name = 'AgentError';
  readonly status: number | null;
  constructor(message: string, status: number | null, options?: ErrorOptions) {
    super(message, options);
    this.status = status;
  }
}

export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE';

export interface Connection {
  /** The body of an answer below 300. Throws `AgentError` for everything else. */
  call(method: Method, path: string, body?: unknown): Promise<string>;
  /** An answer whose body is not yet read, for what lives longer than a call. */
  open(method: Method, path: string, signal: AbortSignal, body?: unknown): Promise<Dispatcher.ResponseData>;
  /** What an answer that refuses says. */
  refusal(method: Method, path: string, answer: Dispatcher.ResponseData): Promise<AgentError>;
  close(): Promise<void>;
}

/** Clocks are answered for after the driver's calls, 10–20 ms each with outliers of hundreds; longer is a daemon that hangs. */
export const ANSWER_MS_MAX = 2_000;
/** More than any node has devices; a bound for what is read into memory. */
const ANSWER_BYTES_MAX = 1_048_576;

/** `reasonOf` finds in a refusal's body what it says; `null` where it is in no form that is known. */
export function createConnection(address: AgentAddress, options: { readonly connectionsMax: number; readonly reasonOf: (text: string) => string | null }): Connection {
  const pool = new Pool(address.kind === 'socket' ? 'http://paceline-agent' : address.origin, {
    ...(address.kind === 'socket' ? { socketPath: address.path } : {}),
    connections: options.connectionsMax,
    pipelining: 1,
    headersTimeout: 0,
    bodyTimeout: 0,
    connectTimeout: ANSWER_MS_MAX,
    allowH2: false,
  });
  let token: string | null = null;

  function headers(body: unknown): string[] {
    const sent = body === undefined ? [] : ['content-type', 'application/json'];
    if (address.kind === 'socket' || address.tokenPath === null) return sent;
    token ??= readToken(address.tokenPath);
    return [...sent, 'authorization', `Bearer ${token}`];
  }

  async function open(method: Method, path: string, signal: AbortSignal, body?: unknown): Promise<Dispatcher.ResponseData> {
    const answer = await pool.request({ method, path, signal, headers: headers(body), ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
    // The file may hold a newer one by the next try.
    if (answer.statusCode === 401) token = null;
    return answer;
  }

  async function refusal(method: Method, path: string, answer: Dispatcher.ResponseData): Promise<AgentError> {
    const text = await boundedText(answer.body as AsyncIterable<Buffer>, ANSWER_BYTES_MAX);
    return new AgentError(`${method} ${path} was answered ${answer.statusCode}: ${options.reasonOf(text) ?? text.slice(0, 200)}`, answer.statusCode);
  }

  async function call(method: Method, path: string, body?: unknown): Promise<string> {
    try {
      const answer = await open(method, path, AbortSignal.timeout(ANSWER_MS_MAX), body);
      if (answer.statusCode >= 300) throw await refusal(method, path, answer);
      return await boundedText(answer.body as AsyncIterable<Buffer>, ANSWER_BYTES_MAX);
    } catch (error) {
      throw asAgentError(error, method, path);
    }
  }

  return { call, open, refusal, close: () => pool.destroy() };
}

/** What a daemon answers, as the shape has it. `isNot`: what an answer of another shape was not, for the message. Throws `AgentError`. */
export async function callFor<Shape extends z.ZodType>(connection: Connection, shape: Shape, { method = 'GET', path, body, isNot }: { readonly method?: Method; readonly path: string; readonly body?: unknown; readonly isNot: string }): Promise<z.output<Shape>> {
  const text = await connection.call(method, path, body);
  try {
    return shape.parse(JSON.parse(text));
  } catch (error) {
    throw new AgentError(`${method} ${path} was answered with ${isNot}: ${text.slice(0, 80)}`, null, { cause: error });
  }
}

export function asAgentError(error: unknown, method: string, path: string): AgentError {
  if (error instanceof AgentError) return error;
  return new AgentError(`${method} ${path}: ${error instanceof Error ? error.message : String(error)}`, null, { cause: error });
}

/** Throws `AgentError` where there is no token that can stand in a header. */
export function readToken(path: string): string {
  try {
    return tokenIn(path);
  } catch (error) {
    throw new AgentError(error instanceof Error ? error.message : String(error), null, { cause: error });
  }
}
