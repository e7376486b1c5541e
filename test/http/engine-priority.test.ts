import fc from 'fast-check';
import { afterEach, expect, test } from 'vitest';
import { deadlineAtUnixMs, enginePriority, PRIORITY_MAX } from '../../src/http/engine-priority.ts';
import { startGateway } from '../fixtures/gateway-under-test.ts';
import { createStubUpstream } from '../fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const at = (iso: string): number => Date.parse(iso);

test('an earlier deadline is never less urgent, in either order, whenever it is', () => {
  const instant = fc.integer({ min: at('2020-01-01T00:00:00Z'), max: at('2100-01-01T00:00:00Z') });
  fc.assert(
    fc.property(instant, instant, (one, other) => {
      const [earlier, later] = [Math.min(one, other), Math.max(one, other)];
      expect(enginePriority('lower-first', earlier)).toBeLessThanOrEqual(enginePriority('lower-first', later));
      expect(enginePriority('higher-first', earlier)).toBeGreaterThanOrEqual(enginePriority('higher-first', later));
    }),
  );
});

test('deadlines 200 ms apart differ until 2039, and then none wraps to the front', () => {
  for (const day of ['2026-01-01T00:00:01Z', '2030-06-01T00:00:00Z', '2039-07-01T00:00:00Z']) {
    expect(enginePriority('lower-first', at(day) + 200) - enginePriority('lower-first', at(day))).toBe(1);
  }
  expect(enginePriority('lower-first', at('2050-01-01T00:00:00Z'))).toBe(PRIORITY_MAX);
  expect(enginePriority('higher-first', at('2050-01-01T00:00:00Z'))).toBe(0);
  expect(enginePriority('lower-first', at('2000-01-01T00:00:00Z'))).toBe(0);
});

test('without a deadline a request is the least urgent', () => {
  expect(enginePriority('lower-first', null)).toBe(PRIORITY_MAX);
  expect(enginePriority('higher-first', null)).toBe(0);
});

test('the deadline is that of the first token, else of the whole', () => {
  expect(deadlineAtUnixMs({ ttftMs: 5, e2eMs: 50 }, 1_000)).toBe(1_005);
  expect(deadlineAtUnixMs({ e2eMs: 50 }, 1_000)).toBe(1_050);
  expect(deadlineAtUnixMs({ tpotMs: 9 }, 1_000)).toBeNull();
});

async function sentBody(replica: string | undefined, body: string, ttftMs?: number): Promise<string> {
  const upstream = await createStubUpstream();
  opened.push(upstream);
  const gateway = await startGateway([upstream], replica === undefined ? {} : { replica });
  opened.push(gateway);
  const response = await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json', ...(ttftMs === undefined ? {} : { 'x-slo-ttft-ms': String(ttftMs) }) }, body });
  await response.text();
  expect(response.status).toBe(200);
  return String(upstream.requests.at(-1)?.body);
}

test("the engine gets the deadline in place of the client's own priority, and every other byte as it came", async () => {
  const beforeMs = Date.now();
  const body = await sentBody('priority: lower-first', '{"priority" : -99, "model":"m","messages":[{"role":"user","content":"priority"}], "n":1.0}', 60_000);
  const afterMs = Date.now();
  const priority = Number(/^\{"priority" : (\d+), "model":"m","messages":\[\{"role":"user","content":"priority"\}\], "n":1\.0\}$/.exec(body)?.[1]);
  expect(priority).toBeGreaterThanOrEqual(enginePriority('lower-first', beforeMs + 60_000));
  expect(priority).toBeLessThanOrEqual(enginePriority('lower-first', afterMs + 60_000));
});

test('a body without a priority gets one at its end', async () => {
  expect(await sentBody('priority: higher-first', '{"model":"m","messages":[]}')).toBe('{"model":"m","messages":[],"priority":0}');
});

test('where none is configured, none is made up', async () => {
  expect(await sentBody(undefined, '{"model":"m","messages":[]}', 60_000)).toBe('{"model":"m","messages":[]}');
});
