// A port that a process can come back to after it was killed: outside of what the kernel gives to outgoing connections, one of
// which would sit on it otherwise, sooner or later.
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';

/** Below Linux's own range, 32,768 to 60,999. */
const PORTS = { min: 20_000, max: 32_000 };
const TRIES_MAX = 50;

export async function lastingPort(): Promise<number> {
  for (let attempt = 0; attempt < TRIES_MAX; attempt++) {
    const port = randomInt(PORTS.min, PORTS.max);
    const server = createServer();
    const free = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false)).listen(port, '127.0.0.1', () => resolve(true));
    });
    if (!free) continue;
    server.close();
    await once(server, 'close');
    return port;
  }
  throw new Error(`no free port from ${PORTS.min} to ${PORTS.max} in ${TRIES_MAX} tries`);
}
