// The examples of agent/PROTOCOL.md, held against the gateway's client: it asks as they ask, and understands what they
// answer. The agent's own tests hold the agent against the same examples.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { AgentClient } from '../../src/agent/agent-client.ts';
import { createAgentClient } from '../../src/agent/agent-client.ts';

const PROTOCOL = readFileSync(new URL('../../agent/PROTOCOL.md', import.meta.url), 'utf8');

/** The JSON blocks under a heading, in their order. */
function examples(heading: string): Record<string, unknown>[] {
  const section = PROTOCOL.split('\n## ').find((text) => text.startsWith(heading));
  if (section === undefined) throw new Error(`no section ${heading}`);
  return [...section.matchAll(/```json\n(.*?)```/gs)].map(([, block]) => JSON.parse(block as string) as Record<string, unknown>);
}

const LEASE = examples('POST /v1/leases');
const PUT = examples('PUT /v1/leases/{lease_id}/targets');

describe("PROTOCOL.md's examples", () => {
  let directory: string;
  let server: Server;
  let client: AgentClient;
  let asked: { route: string; body: Record<string, unknown> | null }[];

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'paceline-protocol-'));
    asked = [];
    server = createServer((incoming, outgoing) => void answer(incoming, outgoing));
    const path = join(directory, 'agent.sock');
    await new Promise<void>((resolve) => server.listen(path, resolve));
    client = createAgentClient({ kind: 'socket', path });
  });
  afterEach(async () => {
    await client.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    rmSync(directory, { recursive: true });
  });

  /** Whatever the examples say, word for word. */
  async function answer(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    let text = '';
    for await (const chunk of incoming) text += String(chunk);
    const route = `${incoming.method} ${incoming.url}`;
    asked.push({ route, body: text === '' ? null : (JSON.parse(text) as Record<string, unknown>) });
    if (route === 'GET /v1/devices') return void outgoing.end(JSON.stringify(examples('GET /v1/devices')[0]));
    if (route === 'POST /v1/leases') return void outgoing.writeHead(201, { 'content-type': 'application/x-ndjson' }).write(`${JSON.stringify(LEASE[1])}\n`);
    if (route === `PUT /v1/leases/${String(LEASE[1]?.['lease_id'])}/targets`) return void outgoing.end(JSON.stringify(PUT[1]));
    outgoing.writeHead(404).end();
  }

  it('are understood: devices, the grant, what became of a target', async () => {
    expect(await client.devices()).toMatchObject([{ device: 'sim:0', controls: ['clock'] }]);
    const lease = await client.lease({ holder: 'gateway-1', devices: ['sim:0', 'sim:1'], ttlMs: 3_000 }, () => undefined, () => undefined);
    expect(lease).toMatchObject({ leaseId: LEASE[1]?.['lease_id'], epoch: LEASE[1]?.['epoch'], ttlMs: LEASE[1]?.['ttl_ms'] });
    const results = await client.putTargets(lease, 17, [{ devices: ['sim:0', 'sim:1'], clock_mhz: 1290, hold_ms: 500 }]);
    expect(results).toMatchObject([{ device: 'sim:0', control: 'clock', demand_mhz: 1290, target_mhz: 1410, status: 'applied' }]);
    lease.abandon();
  });

  it('are how the client asks: no key that they do not have', async () => {
    const lease = await client.lease({ holder: 'gateway-1', devices: ['sim:0', 'sim:1'], ttlMs: 3_000 }, () => undefined, () => undefined);
    await client.putTargets(lease, 17, [{ devices: ['sim:0', 'sim:1'], clock_mhz: 1290, hold_ms: 500 }]);
    lease.abandon();
    const [leaseBody, putBody] = asked.map(({ body }) => body);
    const { controls, ...leaseExample } = LEASE[0] as Record<string, unknown>;
    // `["clock"]` is what an agent takes where nothing is said.
    expect(controls).toEqual(['clock']);
    expect(leaseBody).toEqual(leaseExample);
    expect(putBody).toEqual(PUT[0]);
  });
});
