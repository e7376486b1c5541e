// What the dashboard costs: putting its parts together, by the size of the fleet, and what a viewer is sent. With `--pictures DIR` it is
// shown in a headless Chromium under an emulated load, too, and photographed in both themes, wide and at 360 pixels.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { dashboardDocument } from '../../src/dashboard/document.ts';
import { fragmentsOf } from '../../src/dashboard/fragments.ts';
import { createHistory } from '../../src/dashboard/history.ts';
import { startFleet } from '../../src/demo/fleet.ts';
import { runLoad } from '../../src/loadgen/run-load.ts';
import { makeSynthetic } from '../../src/workload/synthetic.ts';
import { aReplica, aReport, aView, MODEL, noFault, NOW_UNIX_MS } from '../../test/dashboard/a-view.ts';
import { openBrowser } from '../../test/fixtures/browser.ts';

const { values } = parseArgs({ options: { json: { type: 'boolean', default: false }, pictures: { type: 'string' } } });
const ROUNDS = 200;
const LOAD_S = 40;

const rows = [2, 16, 48, 1_000].map(measure);
if (values.json) process.stdout.write(`${JSON.stringify(rows)}\n`);
else for (const { replicas, renderMs, documentBytes } of rows) process.stdout.write(`${String(replicas).padStart(5)} replicas: ${renderMs.toFixed(2)} ms to put together, ${(documentBytes / 1_000).toFixed(0)} kB as a whole\n`);
if (values.pictures !== undefined) await photograph(values.pictures);

function measure(replicas: number): { readonly replicas: number; readonly renderMs: number; readonly documentBytes: number } {
  const history = createHistory();
  for (let index = 0; index < 400; index++) {
    history.sampled({ atUnixMs: NOW_UNIX_MS - (400 - index) * 2_500, powerW: 1_000 + 300 * Math.sin(index / 9) });
    history.demanded({ kind: 'demand', replicaId: aReplica('r0').replicaId, point: MODEL.points[index % 2] ?? null, holdMs: 1, change: 'raise', why: { binding: 'energy' } }, NOW_UNIX_MS);
    history.reported(aReport(), NOW_UNIX_MS);
  }
  const view = { ...aView({ snapshot: { replicas: Array.from({ length: replicas }, (_, index) => aReplica(`r${index}`)), queued: 0 } }), remembered: history.read(NOW_UNIX_MS) };
  const times = Array.from({ length: ROUNDS }, () => {
    const startedAtMs = performance.now();
    fragmentsOf(view, noFault);
    return performance.now() - startedAtMs;
  }).toSorted((a, b) => a - b);
  return { replicas, renderMs: times[ROUNDS / 2] as number, documentBytes: Buffer.byteLength(dashboardDocument(fragmentsOf(view, noFault))) };
}

async function photograph(directory: string): Promise<void> {
  mkdirSync(directory, { recursive: true });
  const fleet = await startFleet({ profile: 'config/profiles/llama-3.1-70b.h100-tp4.json', replicas: 2, port: 0, onTrouble: (message) => process.stderr.write(`${message}\n`) });
  const browser = await openBrowser();
  try {
    const { url, adminUrl } = await fleet.gateway('paceline');
    const workload = makeSynthetic({ arrivals: { kind: 'poisson', ratePerS: 3 }, durationS: LOAD_S, seed: 1, promptTokens: { kind: 'lognormal', meanTokens: 900, cv: 0.8 }, outputTokens: { kind: 'lognormal', meanTokens: 120, cv: 0.7 } });
    const load = runLoad({ url, workload, classes: [{ name: 'chat', share: 1, slo: { ttftMs: 1_500, tpotMs: 50 } }], seed: 1, agentSockets: [fleet.agentSocket], windowS: LOAD_S, signal: new AbortController().signal, onProgress: () => {}, onWarning: () => {}, command: 'bench:dashboard' });
    await browser.page.goto(adminUrl);
    await delay(0.8 * LOAD_S * 1_000);
    for (const colorScheme of ['light', 'dark'] as const) {
      await browser.page.emulateMedia({ colorScheme });
      await browser.page.setViewportSize({ width: 1_200, height: 800 });
      await browser.page.screenshot({ path: join(directory, `dashboard-${colorScheme}.png`), fullPage: true, clip: { x: 0, y: 0, width: 1_200, height: 1_110 } });
      await browser.page.setViewportSize({ width: 360, height: 800 });
      await browser.page.screenshot({ path: join(directory, `dashboard-${colorScheme}-360.png`), fullPage: true });
    }
    await load;
  } finally {
    await browser.close();
    await fleet.close();
  }
}
