// HTTP/1.1 by hand over a Unix socket: what a round trip costs should be the agent's time, not a library's.
import { createConnection } from 'node:net';
import type { Socket } from 'node:net';

export interface Answer {
  readonly status: number;
  readonly body: string;
}

export interface Connection {
  /** One request at a time. */
  ask(method: string, path: string, body?: unknown): Promise<Answer>;
  close(): void;
}

export interface HeldLease {
  readonly leaseId: string;
  readonly epoch: number;
  readonly socket: Socket;
}

export async function request(socketPath: string, method: string, path: string, body?: unknown): Promise<Answer> {
  const connection = await connect(socketPath);
  try {
    return await connection.ask(method, path, body);
  } finally {
    connection.close();
  }
}

export async function connect(socketPath: string): Promise<Connection> {
  const socket = await open(socketPath);
  let received = '';
  let settle: { resolve: (answer: Answer) => void; reject: (error: Error) => void } | null = null;
  socket.on('data', (chunk) => {
    received += chunk.toString('latin1');
    const headEnd = received.indexOf('\r\n\r\n');
    if (headEnd < 0) return;
    const length = Number(/content-length: (\d+)/i.exec(received.slice(0, headEnd))?.[1] ?? 0);
    if (received.length < headEnd + 4 + length) return;
    const answer = { status: Number(received.slice(9, 12)), body: received.slice(headEnd + 4, headEnd + 4 + length) };
    received = received.slice(headEnd + 4 + length);
    settle?.resolve(answer);
    settle = null;
  });
  const lost = (error?: Error): void => settle?.reject(error ?? new Error('the agent closed the connection'));
  socket.on('error', lost);
  socket.on('close', () => lost());
  return {
    ask: (method, path, body) =>
      new Promise((resolve, reject) => {
        settle = { resolve, reject };
        socket.write(head(method, path, body));
      }),
    close: () => socket.destroy(),
  };
}

/** Lives as long as its socket. */
export async function lease(socketPath: string, devices: readonly string[], ttlMs: number): Promise<HeldLease> {
  const socket = await open(socketPath);
  socket.write(head('POST', '/v1/leases', { holder: 'bench', devices, ttl_ms: ttlMs }));
  const granted = await new Promise<{ lease_id: string; epoch: number }>((resolve, reject) => {
    let received = '';
    socket.on('data', (chunk) => {
      received += chunk.toString('utf8');
      const line = /\{"[^\n]*"granted"[^\n]*\}/.exec(received)?.[0];
      if (line !== undefined) resolve(JSON.parse(line));
      else if (received.includes('problem+json')) reject(new Error(received));
    });
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`no lease: ${received}`)));
  });
  return { leaseId: granted.lease_id, epoch: granted.epoch, socket };
}

function head(method: string, path: string, body?: unknown): string {
  const text = body === undefined ? '' : JSON.stringify(body);
  return `${method} ${path} HTTP/1.1\r\nhost: agent\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`;
}

function open(socketPath: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(socketPath, () => {
      socket.off('error', reject);
      resolve(socket);
    });
    socket.once('error', reject);
  });
}
