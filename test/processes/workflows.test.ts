// Workflows over real processes: emulated engines, the native agent, a gateway; clients that run graphs of calls.
import { afterEach, expect, test } from 'vitest';
import { type Fleet, startFleet } from '../../src/demo/fleet.ts';

const opened: { close(): unknown }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function start(): Promise<{ fleet: Fleet; url: string; adminUrl: string }> {
  const fleet = await startFleet({ profile: 'config/profiles/llama-3.1-8b.h200.json', replicas: 1, port: 0, onTrouble: (message) => expect.unreachable(message) });
  opened.push(fleet);
  return { fleet, ...(await fleet.gateway('paceline')) };
}

async function json(url: string, init: RequestInit = {}): Promise<any> {
  const response = await fetch(url, { ...init, headers: { 'content-type': 'application/json', ...init.headers } });
  return response.json();
}

/** Streams, as agents do; resolves with what the answer said of its deadline. */
async function call(url: string, model: string, tokens: number, headers: Record<string, string>, signal?: AbortSignal): Promise<number> {
  const body = JSON.stringify({ model, stream: true, messages: [{ role: 'user', content: 'hello' }], max_tokens: tokens, ignore_eos: true });
  const response = await fetch(`${url}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body, ...(signal === undefined ? {} : { signal }) });
  expect(response.status).toBe(200);
  await response.text();
  return Number(response.headers.get('x-paceline-workflow-due-ms'));
}

const of = (id: string, stage: string): Record<string, string> => ({ 'x-paceline-workflow-id': id, 'x-paceline-workflow-stage': stage });

test('a declared fan-out: the short branch may take as long as the long one, and all of it is in time and metered', async () => {
  const { fleet: { model }, url, adminUrl } = await start();
  const outputTokens = { plan: 20, long: 200, short: 20, join: 20 };
  const nodes = Object.entries(outputTokens).map(([stage, tokens]) => ({ stage, model, promptTokens: 50, outputTokens: tokens }));
  const declared = await json(`${url}/v1/workflows`, { method: 'POST', body: JSON.stringify({ id: 'fan', deadlineMs: 12_000, nodes, edges: [['plan', 'long'], ['plan', 'short'], ['long', 'join'], ['short', 'join']] }) });
  expect(declared).toMatchObject({ id: 'fan', verdict: 'meets' });
  const stageOf = (stage: string) => declared.stages.find((each: any) => each.stage === stage);
  // Nothing waits for its end before the long one's.
  expect(Math.abs(stageOf('short').dueInMs - stageOf('long').dueInMs)).toBeLessThanOrEqual(1);
  await call(url, model, 20, of('fan', 'plan'));
  // One whose client dies in the middle is expected again, and comes again.
  const dying = new AbortController();
  setTimeout(() => dying.abort(), 150);
  await expect(call(url, model, 2_000, of('fan', 'long'), dying.signal)).rejects.toThrow();
  const [longMs, shortMs] = await Promise.all([call(url, model, 200, of('fan', 'long')), call(url, model, 20, of('fan', 'short'))]);
  expect(Math.abs(longMs - shortMs)).toBeLessThan(1_000);
  await call(url, model, 20, of('fan', 'join'));
  const ended = await json(`${url}/v1/workflows/fan`);
  expect(ended).toMatchObject({ state: 'ended', outcome: 'finished', met: true, calls: 4, outputTokens: expect.any(Number) });
  expect(ended.spentJoules).toBeGreaterThan(0);
  expect(await (await fetch(`${adminUrl}/metrics`)).text()).toContain('paceline_workflows_open 0');
}, 60_000);

test('a discovered chain: its second run is planned by what the first one was', async () => {
  const { fleet: { model }, url } = await start();
  const headers = (id: string, stage: string): Record<string, string> => ({ ...of(id, stage), 'x-paceline-workflow-deadline-ms': '10000', 'x-paceline-workflow-name': 'agent' });
  const sizes = [['plan', 20], ['act', 120], ['write', 60]] as const;
  const firstDueMs: number[] = [];
  for (const id of ['one', 'two']) {
    for (const [place, [stage, tokens]] of sizes.entries()) {
      const dueMs = await call(url, model, tokens, headers(id, stage));
      if (place === 0) firstDueMs.push(dueMs);
      if (id === 'two' && place === 0) expect((await json(`${url}/v1/workflows/two`)).stages.filter(({ kind }: any) => kind === 'call').map(({ stage: name, state }: any) => [name, state])).toEqual([['plan', 'ended'], ['act', 'waiting'], ['write', 'waiting']]);
    }
    expect(await json(`${url}/v1/workflows/${id}`, { method: 'DELETE' })).toMatchObject({ outcome: 'finished', met: true, calls: 3 });
  }
  // Hurried while nobody knew what follows; then with its part of the slack.
  expect(firstDueMs[1]).toBeGreaterThan(firstDueMs[0] as number);
  expect(firstDueMs[1]).toBeLessThan(10_000);
}, 60_000);
