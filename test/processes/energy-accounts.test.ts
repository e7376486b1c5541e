// Accounts of energy over real processes: emulated engines, the native agent, gateways. What they add up to is what counters say,
// read beside them; what was written down is there after a kill.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import { measureAccountError } from '../../bench/accounts/account-error.ts';
import type { EnergyReport } from '../../src/accounts/energy-report.ts';
import { type Fleet, startFleet } from '../../src/demo/fleet.ts';
import type { EnergySnapshot } from '../../src/gateway-energy.ts';

const PROFILE = 'config/profiles/llama-3.1-70b.h100-tp4.json';
const opened: { close(): unknown }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

test('what requests took and what was idled away adds up to the meter, to 1 %', async () => {
  const { accountErrorPct, meterUncertaintyPct, rowsErrorPct, requests, requestsJ, idleJ, agent } = await measureAccountError({ profile: PROFILE, replicas: 2, policy: 'paceline', ratePerS: 4, durationS: 6, seed: 3 });
  expect(agent, 'make agent builds the agent these tests need').toBe('native');
  expect(requests).toBeGreaterThan(10);
  expect(requestsJ).toBeGreaterThan(idleJ);
  expect(idleJ).toBeGreaterThan(0);
  expect(accountErrorPct).toBeLessThan(1 + meterUncertaintyPct);
  expect(rowsErrorPct).toBeLessThan(1e-6);
}, 60_000);

test('requests are told what they took, tenants are billed for it, and the bill outlives a kill', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'paceline-bill-'));
  opened.push({ close: () => rmSync(directory, { recursive: true, force: true }) });
  const accounts = join(directory, 'energy.sqlite');
  const tenant = (name: string): object => ({ name, apiKeySha256: [createHash('sha256').update(`sk-${name}`).digest('hex')] });
  const fleet: Fleet = await startFleet({ profile: PROFILE, replicas: 1, port: 0, config: { tenants: [tenant('acme'), tenant('beta')], accounts: { file: accounts, flushEveryMs: 1_000 } }, onTrouble: () => {} });
  opened.push(fleet);
  const { url, adminUrl } = await fleet.gateway('paceline');
  const energy = async (): Promise<EnergySnapshot> => (await (await fetch(`${adminUrl}/paceline/energy`)).json()) as EnergySnapshot;
  await vi.waitFor(async () => expect((await energy()).replicas).toMatchObject([{ source: 'metered' }]), { timeout: 10_000 });
  const ask = (name: string, body: object): Promise<Response> =>
    fetch(`${url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer sk-${name}`, 'x-paceline-energy': '1' },
      body: JSON.stringify({ model: fleet.model, messages: [{ role: 'user', content: 'count' }], max_tokens: 100, ...body }),
    });

  const whole = await ask('acme', { metadata: { emulate_output_tokens: '60' } });
  const toldMj = Number(whole.headers.get('x-paceline-energy-mj'));
  expect(toldMj).toBeGreaterThan(0);
  expect(whole.headers.get('x-paceline-energy-source')).toMatch(/metered/);
  await whole.text();
  const stream = await (await ask('beta', { stream: true, metadata: { emulate_output_tokens: '60' } })).text();
  const told = /"energy":(\{[^}]*\})/.exec(stream)?.[1];
  expect(JSON.parse(told ?? 'null')).toMatchObject({ mj: expect.any(Number), source: expect.stringMatching(/metered/) });

  // What a request was told is an estimate of what its account says once the counters have.
  await vi.waitFor(async () => expect((await energy()).rows.map(({ modelledJ }) => Math.abs(modelledJ) < 1e-9)).toEqual([true, true]), { timeout: 10_000 });
  const acmeJ = (await energy()).rows.find((row) => row.tenant === 'acme')?.meteredJ ?? 0;
  expect(toldMj / 1_000 / acmeJ).toBeGreaterThan(0.7);
  expect(toldMj / 1_000 / acmeJ).toBeLessThan(1.4);

  const report = (...more: string[]): string => execFileSync(process.execPath, ['src/main.ts', 'report', '--file', accounts, '--since', '2026-01-01', ...more], { encoding: 'utf8' });
  const bill = (): EnergyReport => JSON.parse(report('--json', '--price-per-kwh', '0.3', '--carbon-g-per-kwh', '400')) as EnergyReport;
  await vi.waitFor(() => expect(bill().lines.map(({ requests, modelledJ }) => [requests, Math.abs(modelledJ) < 1e-9])).toEqual([[1, true], [1, true]]), { timeout: 10_000, interval: 300 });
  process.kill(fleet.pids().gateway as number, 'SIGKILL');
  const { lines, total, besides } = bill();
  expect(lines.map(({ key }) => key).sort()).toEqual(['acme', 'beta']);
  expect(lines.find(({ key }) => key === 'acme')?.meteredJ).toBeCloseTo(acmeJ, 6);
  expect(total).toMatchObject({ requests: 2, outputTokens: 120 });
  expect(total.cost).toBeCloseTo((total.energyJ / 3_600_000) * 0.3, 9);
  expect(besides.idleMeteredJ).toBeGreaterThan(0);
  expect(report('--by', 'model', '--csv').split('\n')[1]).toMatch(new RegExp(`^${fleet.model},2,`));
  expect(report('--by', 'day')).toMatch(/All of this is an estimate/);
}, 60_000);
