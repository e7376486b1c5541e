// An engine behind a `paceline serve` of its own, as an operator would have it: a configuration file, and a profile measured before.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { eventually } from '../fixtures/gateway-under-test.ts';
import type { Served } from '../fixtures/served.ts';
import { startServed } from '../fixtures/served.ts';
import type { Engine } from './engine.ts';
import { PLACES } from './engine.ts';

/** As clients call the model, whatever the engine does. */
export const MODEL = 'tiny';

export interface BehindGateway {
  readonly served: Served;
  post(body: object, options?: { readonly path?: string; readonly headers?: Readonly<Record<string, string>>; readonly signal?: AbortSignal }): Promise<Response>;
  status(): Promise<Status>;
  close(): Promise<void>;
}

export interface Status {
  readonly inFlight: number;
  readonly replicas: readonly { readonly state: string; readonly serverLoad: { readonly running: number; readonly waiting: number } | null }[];
}

/** `profile`: a file. `replica` and `more`: further keys of the one replica, and of the configuration. */
export async function serveEngine(engine: Engine, profile: string, { replica = {}, more = {} }: { readonly replica?: object; readonly more?: object } = {}): Promise<BehindGateway> {
  const directory = mkdtempSync(join(tmpdir(), 'paceline-engines-'));
  const config = {
    listen: { port: 0 },
    admin: { port: 0 },
    replicas: [{ id: 'engine', url: engine.url, models: { [MODEL]: engine.model }, profile, concurrencyMax: PLACES, ...replica }],
    slo: { classes: { standard: { ttftMs: 30_000, tpotMs: 2_000 } }, default: 'standard' },
    health: { everyMs: 250 },
    logging: { level: 'warn' },
    ...more,
  };
  writeFileSync(join(directory, 'paceline.yaml'), stringify(config));
  const served = await startServed(['src/main.ts', 'serve', '--config', join(directory, 'paceline.yaml')]);
  if (served.url === '') throw new Error(`the gateway did not start: ${served.stderr()}`);
  await eventually(async () => (await fetch(`${served.adminUrl}/readyz`)).status === 200, 20_000);
  return {
    served,
    post: (body, { path = '/v1/chat/completions', headers = {}, signal } = {}) =>
      fetch(`${served.url}${path}`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify({ model: MODEL, ...body }), ...(signal === undefined ? {} : { signal }) }),
    status: async () => (await (await fetch(`${served.adminUrl}/paceline/status`)).json()) as Status,
    close: async () => {
      await served.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
