// The connections to one model server: one for each request under way, kept for the next one, the last used first (undici's own pool
// asks every connection whether it is free). Some servers close them behind an answer though they said that they would not.
import type { Socket } from 'node:net';
import { buildConnector, Client } from 'undici';

/**
 * What kind of answer came over a connection. llama.cpp closes it behind a `stream`, and not behind a `whole` answer; uvicorn behind the
 * 500 of a handler that threw, and not behind others: after `crashed` none is used again.
 */
export type AnswerKind = 'stream' | 'whole' | 'crashed';

export interface Connections {
  /** An idle one, or a new one. It comes back by `giveBack`, once. */
  take(): Client;
  /** `answer`: what it has just carried to its end; `null` where there was none. */
  giveBack(client: Client, answer: AnswerKind | null): void;
  /** Closes those that nobody needs; `busy` are under way. */
  sweep(busy: number): void;
  close(): Promise<void>;
}

export interface ConnectionsOptions {
  readonly origin: string;
  readonly connectMs: number;
  /** Of undici's client. */
  readonly clientOptions: Client.Options;
  readonly now: () => number;
}

/** Kept open for the next request though fewer are in use. */
const IDLE_KEPT = 64;

/**
 * A server that closes behind an answer does it within a round trip. So long a connection is not used again, until one has outlived an
 * answer of its kind by it: sooner, the next request might be written to a connection that is closing, and it could not be told
 * whether the server has seen it.
 */
const REST_MS = 50;

export function createConnections({ origin, connectMs, clientOptions, now }: ConnectionsOptions): Connections {
  const connector = buildConnector({ timeout: connectMs, allowH2: false });
  const idle: Client[] = [];
  /** Each with its connection, once it has one. */
  const clients = new Map<Client, Socket | null>();
  /** When each carried what to its end, where that was less than a rest ago or it is idle since. */
  const answered = new Map<Client, { readonly kind: AnswerKind; readonly atMs: number }>();
  const resting = new Map<Client, NodeJS.Timeout>();
  /** Kinds of answers behind which this server leaves its connections open, as far as has been seen. */
  const keepsOpenAfter = new Set<AnswerKind>();

  function drop(client: Client): void {
    clients.delete(client);
    answered.delete(client);
    clearTimeout(resting.get(client));
    resting.delete(client);
    void client.destroy();
  }

  function create(): Client {
    const client: Client = new Client(origin, {
      ...clientOptions,
      connect: (target, connected) =>
        connector(target, (...outcome) => {
          if (clients.has(client)) clients.set(client, outcome[1]);
          connected(...outcome);
        }),
    });
    client.on('disconnect', () => {
      const last = answered.get(client);
      // Also where it has been taken again: then a request goes down with it, and it is the last one that does.
      if (last !== undefined && now() - last.atMs < REST_MS) keepsOpenAfter.delete(last.kind);
    });
    clients.set(client, null);
    return client;
  }

  function isOpen(client: Client): boolean {
    const socket = clients.get(client) ?? null;
    return socket !== null && !socket.destroyed && !socket.readableEnded;
  }

  function rest(client: Client, kind: AnswerKind): void {
    resting.set(
      client,
      setTimeout(() => {
        resting.delete(client);
        if (isOpen(client)) keepsOpenAfter.add(kind);
        idle.push(client);
      }, REST_MS).unref(),
    );
  }

  return {
    take: () => idle.pop() ?? create(),
    giveBack: (client, answer) => {
      if (!clients.has(client)) return;
      // Answered before it had read the request: what it has not read stands before the next one (RFC 9112, 9.3).
      if (answer === 'crashed' || (clients.get(client)?.writableLength ?? 0) > 0) return drop(client);
      if (answer === null) return void idle.push(client);
      answered.set(client, { kind: answer, atMs: now() });
      if (keepsOpenAfter.has(answer)) idle.push(client);
      else rest(client, answer);
    },
    sweep: (busy) => {
      for (const client of idle.splice(0, idle.length - Math.max(IDLE_KEPT, busy))) drop(client);
    },
    close: async () => {
      for (const timer of resting.values()) clearTimeout(timer);
      resting.clear();
      await Promise.all([...clients.keys()].map((client) => client.destroy()));
    },
  };
}
