import { createServer } from 'node:http';
import { mkdtempSync, rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { createDcgmCounters, parseDcgmPage } from '../../src/compare/dcgm-counters.ts';
import { startEnergyLog } from '../../src/compare/energy-log.ts';
import { openMeter, parseMeter } from '../../src/compare/meter.ts';

const opened: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close();
});

async function serve(body: () => string, place: 'port' | 'socket' = 'port'): Promise<string> {
  const server = createServer((_, response) => void response.end(body()));
  const directory = mkdtempSync(join(tmpdir(), 'paceline-meter-'));
  const path = join(directory, 's');
  await new Promise<void>((resolve) => (place === 'port' ? server.listen(0, '127.0.0.1', resolve) : server.listen(path, resolve)));
  opened.push(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    rmSync(directory, { recursive: true });
  });
  return place === 'socket' ? path : `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** As dcgm-exporter 4 writes it. */
function dcgmPage(gpus: readonly { readonly index: number; readonly energyMj?: number | string; readonly powerW?: number; readonly mig?: string }[]): string {
  const labels = ({ index, mig }: { readonly index: number; readonly mig?: string }): string =>
    `{gpu="${index}",UUID="GPU-${index}",pci_bus_id="00000000:0${index}:00.0",device="nvidia${index}",modelName="NVIDIA H100 80GB HBM3"${mig === undefined ? '' : `,GPU_I_PROFILE="1g.10gb",GPU_I_ID="${mig}"`},Hostname="n1",DCGM_FI_DRIVER_VERSION="570.0"}`;
  return [
    '# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).',
    '# TYPE DCGM_FI_DEV_POWER_USAGE gauge',
    ...gpus.flatMap((gpu) => (gpu.powerW === undefined ? [] : [`DCGM_FI_DEV_POWER_USAGE${labels(gpu)} ${gpu.powerW}`])),
    '# HELP DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION Total energy consumption since boot (in mJ).',
    '# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter',
    ...gpus.flatMap((gpu) => (gpu.energyMj === undefined ? [] : [`DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION${labels(gpu)} ${gpu.energyMj}`])),
    'DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-0"} 41',
    '',
  ].join('\n');
}

describe("dcgm-exporter's page", () => {
  test('tells energy and power by UUID, and what is no number is not told', () => {
    expect([...parseDcgmPage(dcgmPage([{ index: 0, energyMj: 5_000_000, powerW: 350.5 }, { index: 1, energyMj: 'NaN', powerW: 90 }, { index: 2, energyMj: '9223372036854775792' }]))]).toEqual([
      ['GPU-0', { counterMj: 5_000_000, powerW: 350.5, index: '0' }],
      ['GPU-1', { counterMj: null, powerW: 90, index: '1' }],
    ]);
  });

  test('with MIG has a device once, though each instance repeats it', () => {
    const readings = parseDcgmPage(dcgmPage([{ index: 0, energyMj: 1000, powerW: 100, mig: '7' }, { index: 0, energyMj: 1000, powerW: 100, mig: '8' }]));
    expect([...readings.keys()]).toEqual(['GPU-0']);
  });

  test('is carried forward from when a counter was seen to change, with its power', async () => {
    let energyMj = 1_000_000;
    let nowMs = 0;
    const counters = createDcgmCounters(await serve(() => dcgmPage([{ index: 0, energyMj, powerW: 200 }])), () => nowMs);
    opened.push(() => counters.close());
    const read = async (): Promise<number | null | undefined> => (await counters.read()).get('GPU-0')?.energyJ;
    expect(await read()).toBe(1000);
    nowMs = 10_000;
    expect(await read()).toBe(3000);
    energyMj = 6_500_000;
    nowMs = 30_000;
    expect(await read()).toBe(6500);
    nowMs = 151_000;
    await expect(read()).rejects.toThrow('the energy counter of GPU-0 has not ticked for 121 s');
  });

  test('without the fields says which, and another port says that nobody is there', async () => {
    const counters = createDcgmCounters(await serve(() => 'up 1\n'), () => 0);
    const nobody = createDcgmCounters('http://127.0.0.1:9', () => 0);
    opened.push(() => counters.close(), () => nobody.close());
    await expect(counters.read()).rejects.toThrow('has neither DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION nor DCGM_FI_DEV_POWER_USAGE');
    await expect(nobody.read()).rejects.toThrow('cannot be read (ECONNREFUSED); is dcgm-exporter running there?');
  });
});

describe('a meter', () => {
  test.each([
    { text: 'agent:/run/a.sock', spec: { arm: null, kind: 'agent', address: '/run/a.sock', devices: [] } },
    { text: 'b=zeusd:/run/z.sock#zeusd:0,zeusd:1', spec: { arm: 'b', kind: 'zeusd', address: '/run/z.sock', devices: ['zeusd:0', 'zeusd:1'] } },
    { text: 'dcgm:http://h:9400/metrics#0', spec: { arm: null, kind: 'dcgm', address: 'http://h:9400/metrics', devices: ['0'] } },
  ])('$text is one', ({ text, spec }) => {
    expect(parseMeter(text, ['a', 'b'])).toEqual(spec);
  });

  test.each([
    { text: '/run/a.sock', message: "--meter: got '/run/a.sock', want [ARM=]agent:SOCKET" },
    { text: 'c=agent:/run/a.sock', message: "--meter: got the arm 'c', there are: a, b" },
    { text: 'dcgm:9400', message: "--meter: got '9400', want dcgm:http://HOST:PORT" },
  ])('$text is refused', ({ text, message }) => {
    expect(() => parseMeter(text, ['a', 'b'])).toThrow(message);
  });

  test('of DCGM takes devices by their UUID or their number', async () => {
    const url = await serve(() => dcgmPage([0, 1, 2].map((index) => ({ index, energyMj: 1000 * index, powerW: 0 }))));
    const meter = openMeter({ arm: null, kind: 'dcgm', address: url, devices: ['GPU-0', '2'] }, () => 0);
    const stranger = openMeter({ arm: null, kind: 'dcgm', address: url, devices: ['7'] }, () => 0);
    opened.push(() => meter.close(), () => stranger.close());
    expect([...(await meter.read()).keys()]).toEqual(['GPU-0', 'GPU-2']);
    await expect(stranger.read()).rejects.toThrow("no device '7'; there are: GPU-0, GPU-1, GPU-2");
  });

  test('of zeusd reads its counters', async () => {
    const socket = await serve(() => JSON.stringify({ 0: { timestamp_ms: 1, energy_mj: 5000 }, 1: { timestamp_ms: 1, energy_mj: 7000 } }), 'socket');
    const meter = openMeter({ arm: null, kind: 'zeusd', address: socket, devices: [] }, () => 0);
    opened.push(() => meter.close());
    expect([...(await meter.read())]).toEqual([['zeusd:0', { counterMj: 5000, energyJ: 5, powerW: null }], ['zeusd:1', { counterMj: 7000, energyJ: 7, powerW: null }]]);
  });

  test('that counts for one arm is not added to another', async () => {
    const nowMs = (): number => performance.now();
    const startedAtMs = nowMs();
    const steady = (powerW: number) => () => dcgmPage([{ index: 0, energyMj: Math.round(powerW * (nowMs() - startedAtMs)) + 1000, powerW }]);
    const [all, own] = [await serve(steady(1000)), await serve(steady(1000))];
    const log = await startEnergyLog([{ arm: null, kind: 'dcgm', address: all, devices: [] }, { arm: 'b', kind: 'dcgm', address: own, devices: [] }], nowMs);
    opened.push(() => log.close());
    const from = nowMs();
    const energyOf = async (arm: string): Promise<number> => {
      const { energy } = await log.window(arm, from, from + 1500);
      return energy?.kind === 'measured' ? energy.energyJ : Number.NaN;
    };
    const [shared, both] = [await energyOf('a'), await energyOf('b')];
    // A busy machine reads late by its own measure; twice as much it does not make of it.
    expect(shared).toBeGreaterThan(1000);
    expect(shared).toBeLessThan(2000);
    expect(both / shared).toBeGreaterThan(1.5);
    expect(both / shared).toBeLessThan(2.5);
  });
});
