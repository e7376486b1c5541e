// The path of a Unix socket that we are to listen on: free, or made free where only a dead process's socket lies there.
import { chmodSync, existsSync, lstatSync, unlinkSync } from 'node:fs';
import type { Server } from 'node:net';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { ConfigError } from '../config/config-problems.ts';

/** Listens on the path; the socket is there for others only with its mode. Throws `ConfigError`. */
export async function listenOnSocket(server: Server, path: string, mode: number): Promise<void> {
  await makeFree(path);
  const listening = new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', () => {
      server.off('error', reject);
      resolve();
    });
  });
  // It is bound within this call. Until its mode is set nobody else may connect, whatever the process's mask is.
  const mask = process.umask(0o177);
  try {
    server.listen(path);
  } finally {
    process.umask(mask);
  }
  try {
    await listening;
    chmodSync(path, mode);
  } catch (cause) {
    server.close();
    throw new ConfigError([`listen.socket: cannot listen on ${path}: ${cause instanceof Error ? cause.message : String(cause)}`]);
  }
}

async function makeFree(path: string): Promise<void> {
  // The system calls it a missing right.
  if (!existsSync(dirname(path))) throw new ConfigError([`listen.socket: ${path}: there is no directory ${dirname(path)}; make it first`]);
  const there = lstatSync(path, { throwIfNoEntry: false });
  if (there === undefined) return;
  if (!there.isSocket()) throw new ConfigError([`listen.socket: ${path} is there and is no socket; remove it or choose another path`]);
  const trouble = await connectTrouble(path);
  // Only this says that nobody listens; a full backlog or a missing right are signs of somebody who does.
  if (trouble !== 'ECONNREFUSED') throw new ConfigError([`listen.socket: another process listens on ${path}${trouble === null ? '' : ` (${trouble})`}; stop it or choose another path`]);
  unlinkSync(path);
}

/** The code of the error that a connection meets; `null` where it is accepted. */
function connectTrouble(path: string): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(null);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
}
