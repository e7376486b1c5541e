// The dashboard in a real Chromium: live over a real gateway, usable by keyboard and by screen readers, in both themes, on a phone.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { startFleet } from '../../src/demo/fleet.ts';
import { type Browser, CHROMIUM, openBrowser } from '../fixtures/browser.ts';
import { type GatewayUnderTest, startGateway } from '../fixtures/gateway-under-test.ts';
import { createStubUpstream } from '../fixtures/stub-upstream.ts';

vi.setConfig({ testTimeout: 90_000 });

/** That of `paceline demo`, whose model the documents name; its steps are long enough for a clock to matter on a busy machine. */
const DEMO_PROFILE = 'config/profiles/llama-3.1-70b.h100-tp4.json';

const opened: { close(): unknown }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

interface Shown extends Browser {
  readonly gateway: GatewayUnderTest;
  /** One request through the gateway. */
  ask(headers?: Record<string, string>): Promise<void>;
  /** Waits until a text stands in the page. */
  sees(selector: string, text: string | RegExp): Promise<void>;
}

async function show(admin = ''): Promise<Shown> {
  const upstream = await createStubUpstream();
  opened.push(upstream);
  const gateway = await startGateway([upstream], { more: `admin: { port: 0${admin} }` });
  opened.push(gateway);
  const browser = await openBrowser(admin === '' ? undefined : { username: 'operator', password: 'sk-operator' });
  opened.push(browser);
  await browser.page.goto(gateway.adminUrl);
  const sees = async (selector: string, text: string | RegExp): Promise<void> => browser.page.locator(selector).filter({ hasText: text }).first().waitFor({ timeout: 30_000 });
  await sees('#live', /^Live$/);
  return {
    ...browser,
    gateway,
    sees,
    ask: async (headers = {}) => {
      const answer = await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json', 'x-slo-ttft-ms': '60000', ...headers }, body: JSON.stringify({ model: 'm', stream: true, messages: [{ role: 'user', content: 'x' }] }) });
      await answer.text();
    },
  };
}

describe.skipIf(CHROMIUM === null)('in Chromium', () => {
  test('what happens is seen without loading anew, and the browser has nothing to complain of', async () => {
    const { page, ask, sees, complaints } = await show();
    await sees('#f-requests', 'No request has ended yet');
    await ask();
    await sees('#f-requests', '✓ met');
    await sees('#f-figures', 'of 1 in 15 minutes');
    expect(await page.title()).toBe('Paceline');
    expect(complaints).toEqual([]);
  });

  test('where there is a key, the page and its events open by the password that the browser was given', async () => {
    const { sees, ask, complaints } = await show(', keyEnv: OPERATOR_KEY');
    await ask();
    await sees('#f-requests', '✓ met');
    expect(complaints).toEqual([]);
  });

  test('all of it can be reached and used by keyboard, and the keyboard stays where it is when parts are swapped', async () => {
    const { page, ask, sees } = await show();
    await page.keyboard.press('Tab');
    expect(await page.evaluate('document.activeElement.textContent')).toBe('To the fleet');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await sees('#live', 'Paused');
    expect(await page.locator('#pause').getAttribute('aria-pressed')).toBe('true');
    await page.keyboard.press('Enter');
    await sees('#live', /^Live$/);
    // The frontier's values are open, and its summary has the focus, after the frontier was drawn anew.
    await page.locator('#f-frontier summary').first().focus();
    await page.keyboard.press('Enter');
    await page.evaluate("document.querySelector('#f-frontier svg').marked = true");
    await ask();
    await expect.poll(() => page.evaluate("document.querySelector('#f-frontier svg').marked"), { timeout: 30_000 }).toBeUndefined();
    expect(await page.locator('#f-frontier details').first().getAttribute('open')).not.toBeNull();
    expect(await page.evaluate("document.activeElement === document.querySelector('#f-frontier summary')")).toBe(true);
  });

  test('while it is paused nothing moves, and text that is selected stays', async () => {
    const { page, ask, sees } = await show();
    await page.locator('#pause').click();
    await sees('#live', 'Paused');
    await ask();
    await page.waitForTimeout(2_500);
    expect(await page.locator('#f-requests').textContent()).toContain('No request has ended yet');
    await page.evaluate("getSelection().selectAllChildren(document.querySelector('#f-requests'))");
    await page.locator('#pause').press('Enter');
    await sees('#f-figures', 'of 1 in 15 minutes');
    expect(await page.locator('#f-requests').textContent()).toContain('No request has ended yet');
  });

  test('a gateway that is gone is said to be, and that it is tried again', async () => {
    const { gateway, sees } = await show();
    await gateway.close();
    await sees('#live', 'Connection lost; trying again');
  });

  test.each(['light', 'dark'] as const)('in %s axe finds nothing to fault, contrast included, and at 360 pixels nothing hangs out', async (colorScheme) => {
    const { page, ask, sees } = await show();
    await ask();
    await sees('#f-requests', '✓ met');
    await page.emulateMedia({ colorScheme });
    await page.locator('#pause').click();
    // The page's own policy would let no such script in; the browser's debugger may.
    await page.evaluate(readFileSync(createRequire(import.meta.url).resolve('axe-core'), 'utf8'));
    for (const width of [1_200, 360]) {
      await page.setViewportSize({ width, height: 800 });
      expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(width);
      const found = await page.evaluate(() => (globalThis as never as { axe: { run(): Promise<{ violations: { id: string; nodes: { html: string; failureSummary: string }[] }[] }> } }).axe.run());
      expect(found.violations.map(({ id, nodes }) => `${id}: ${nodes[0]?.html} ${nodes[0]?.failureSummary}`)).toEqual([]);
    }
    const ground = await page.evaluate('getComputedStyle(document.body).backgroundColor');
    expect(ground).toBe(colorScheme === 'light' ? 'rgb(255, 255, 255)' : 'rgb(20, 23, 27)');
  });

  test('without its script the page is whole, and loads itself anew', async () => {
    const { gateway, ask, context } = await show();
    const page = await (await context.browser()?.newContext({ javaScriptEnabled: false }))?.newPage();
    if (page === undefined) return expect.fail('no second context');
    await page.goto(gateway.adminUrl);
    await ask();
    await page.locator('#f-requests').filter({ hasText: '✓ met' }).waitFor({ timeout: 30_000 });
  });

  test('an SLO is changed, and the page shows how the clock follows', async () => {
    const fleet = await startFleet({ profile: DEMO_PROFILE, replicas: 1, port: 0, onTrouble: () => {} });
    opened.push(fleet);
    const { url, adminUrl } = await fleet.gateway('paceline');
    const browser = await openBrowser();
    opened.push(browser);
    const { page } = browser;
    await page.goto(`${adminUrl}/paceline/dashboard`);
    const clockMhz = async (): Promise<number> => Number(/(\d+) MHz/.exec((await page.locator('#f-fleet .clock').first().textContent()) ?? '')?.[1] ?? Number.NaN);
    // As docs/dashboard.md has it, on the port that there is here.
    const ask = /^ask\(\) .*$/m.exec(readFileSync('docs/dashboard.md', 'utf8'))?.[0].replace('http://127.0.0.1:8080', url) ?? 'exit 1';
    const start = (call: string): { readonly stop: () => void } => {
      // A group of its own, so that curl ends with its shell.
      const shell = spawn('bash', ['-c', `${ask}\n${call}`], { stdio: 'ignore', detached: true });
      const stop = (): void => {
        if (shell.exitCode === null && shell.signalCode === null && !shell.killed && shell.pid !== undefined) process.kill(-shell.pid, 'SIGTERM');
        shell.kill();
      };
      opened.push({ close: stop });
      return { stop };
    };
    const patient = start('ask 200');
    // While nothing is there it waits at another clock than the one that a patient request gets.
    await page.locator('#f-fleet').filter({ hasText: 'No deadline binds' }).waitFor({ timeout: 30_000 });
    const before = await clockMhz();
    const hurried = start('ask 18');
    await page.locator('#f-fleet').filter({ hasText: 'would come too slowly' }).waitFor({ timeout: 30_000 });
    expect(await clockMhz()).toBeGreaterThan(before);
    hurried.stop();
    await page.locator('#f-fleet').filter({ hasText: 'No deadline binds' }).waitFor({ timeout: 30_000 });
    await expect.poll(clockMhz, { timeout: 30_000 }).toBeLessThanOrEqual(before);
    expect(await page.locator('#f-clocks').textContent()).toContain('would come too slowly');
    patient.stop();
    expect(browser.complaints).toEqual([]);
  });
});
