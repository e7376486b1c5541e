// Real files and sockets; what does not come, or is garbage, never replaces what is there.
import { chmodSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { openSeries, type SeriesPlace, type SeriesSource } from '../../src/signals/series-source.ts';
import { eventually } from '../fixtures/gateway-under-test.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const series = (value: number): string => JSON.stringify([{ time: '2026-11-26T18:00:00Z', value }]);

interface Opened {
  readonly source: SeriesSource;
  readonly troubles: (string | null)[];
  value(): number | undefined;
}

function open(place: SeriesPlace): Opened {
  const troubles: (string | null)[] = [];
  const source = openSeries(place, { now: () => performance.now(), onSeries: () => {}, onTrouble: (why) => troubles.push(why) });
  opened.push(source);
  return { source, troubles, value: () => source.series()?.points[0]?.value };
}

describe('of a file', () => {
  function file(text: string): string {
    const directory = mkdtempSync(join(tmpdir(), 'series-'));
    opened.push({ close: async () => rmSync(directory, { recursive: true }) });
    writeFileSync(join(directory, 'series.json'), text);
    return join(directory, 'series.json');
  }

  test('the series is there at once, and another one when the file is another one', async () => {
    const path = file(series(1));
    const { value, troubles } = open({ kind: 'file', path });
    expect(value()).toBe(1);
    writeFileSync(`${path}.new`, series(22));
    renameSync(`${path}.new`, path);
    await eventually(() => value() === 22);
    expect(troubles).toEqual([]);
  });

  test('the last good one stays while the file is bad or gone, which is told once, and is told to be over', async () => {
    const path = file(series(1));
    const { value, troubles, source } = open({ kind: 'file', path });
    writeFileSync(path, '[{"time":"yesterday"}]');
    await eventually(() => troubles.length === 1);
    rmSync(path);
    await eventually(() => troubles.length === 2);
    expect(value()).toBe(1);
    expect(source.trouble()).toMatchObject({ why: expect.stringContaining('ENOENT') });
    writeFileSync(path, series(3));
    await eventually(() => value() === 3);
    expect(troubles).toEqual([expect.stringContaining(`${path}: [0].time: got yesterday`), expect.stringContaining('ENOENT'), null]);
    expect(source.trouble()).toBe(null);
  });

  test.runIf(process.getuid?.() !== 0)('that may not be read is said', () => {
    const path = file(series(1));
    chmodSync(path, 0);
    expect(open({ kind: 'file', path }).troubles).toEqual([expect.stringContaining('EACCES')]);
  });

  test('that is too large, or is no file, is not read', () => {
    const path = file(' '.repeat(2_097_153));
    expect(open({ kind: 'file', path }).troubles).toEqual([`${path} has 2097153 bytes, want at most 2097152`]);
    expect(open({ kind: 'file', path: tmpdir() }).troubles).toEqual([`${tmpdir()} is no file`]);
  });
});

describe('of an address', () => {
  async function serve(listener: RequestListener): Promise<string> {
    const server = createServer(listener);
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    opened.push({
      close: () =>
        new Promise((resolve) => {
          server.closeAllConnections();
          server.close(() => resolve());
        }),
    });
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}/budget?key=secret`;
  }
  const at = (url: string, more: { tokenPath?: string; timeoutMs?: number } = {}): SeriesPlace => ({ kind: 'http', url, tokenPath: null, everyMs: 20, timeoutMs: 500, ...more });

  test('the series is asked for again and again, with the path, the query and the token', async () => {
    const asked: unknown[] = [];
    const url = await serve(({ url: path, headers }, outgoing) => {
      asked.push([path, headers.authorization]);
      outgoing.end(series(asked.length));
    });
    const directory = mkdtempSync(join(tmpdir(), 'series-'));
    opened.push({ close: async () => rmSync(directory, { recursive: true }) });
    const tokenPath = join(directory, 'token');
    writeFileSync(tokenPath, 'sesame\n');
    const { value } = open(at(url, { tokenPath }));
    expect(value()).toBeUndefined();
    await eventually(() => (value() ?? 0) >= 3);
    expect(asked[0]).toEqual(['/budget?key=secret', 'Bearer sesame']);
  });

  test.each<[string, RequestListener, RegExp]>([
    ['hangs', () => {}, /no answer within 200 ms/],
    ['begins and hangs', (_, outgoing) => void outgoing.write('['), /no answer within 200 ms/],
    ['fails', (_, outgoing) => void outgoing.writeHead(500).end('no'), /was answered 500$/],
    ['leads elsewhere', (_, outgoing) => void outgoing.writeHead(302, { location: '/other' }).end(), /was answered 302, a redirect, which is not followed/],
    ['tells garbage', (_, outgoing) => void outgoing.end('<html>'), /line 1: got <html>/],
    ['breaks off', (_, outgoing) => void outgoing.writeHead(200, { 'content-length': '100' }).write('[', () => outgoing.destroy()), /budget: ./],
    [
      'does not end',
      (_, outgoing) => {
        const more = (): void => {
          if (!outgoing.destroyed) outgoing.write(' '.repeat(500_000), more);
        };
        more();
      },
      /more than 2097152 bytes/,
    ],
  ])('that %s changes nothing, and is said without its query', async (_what, listener, message) => {
    let good = true;
    const url = await serve((incoming, outgoing) => (good ? void outgoing.end(series(7)) : listener(incoming, outgoing)));
    const { value, troubles } = open(at(url, { timeoutMs: 200 }));
    await eventually(() => value() === 7);
    good = false;
    await eventually(() => troubles.length > 0);
    expect(value()).toBe(7);
    expect(troubles[0]).toMatch(message);
    expect(troubles[0]).not.toContain('secret');
    good = true;
    await eventually(() => troubles.at(-1) === null);
  });

  test('that nobody listens at is said, and closing does not wait for one that hangs', async () => {
    const nobody = open(at('http://127.0.0.1:9/'));
    await eventually(() => nobody.troubles.length > 0);
    expect(nobody.troubles[0]).toMatch(/ECONNREFUSED/);
    const url = await serve(() => {});
    const { source } = open(at(url, { timeoutMs: 60_000 }));
    await source.close();
  });
});
