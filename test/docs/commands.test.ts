// Every shell command of the documents is run as it stands, in their order, but for ports, paths and how long a load lasts; or stands in
// not-run.ts, with why it cannot and what is looked at instead.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { commandsOf, wordsOf } from './commands.ts';
import { NOT_RUN, optionsMissing } from './not-run.ts';
import type { Workplace } from './workplace.ts';
import { createWorkplace } from './workplace.ts';

/** The README first: what it starts stands behind the others. */
const DOCUMENTS = ['README.md', ...readdirSync('docs').filter((name) => name.endsWith('.md')).map((name) => join('docs', name)), 'deploy/README.md', 'CONTRIBUTING.md'];
const RUN_WITHIN_MS = 90_000;

let place: Workplace;
/** What commands have answered, for those whose text says `file-…`. */
const told = new Map<string, string>();

beforeAll(async () => {
  place = await createWorkplace();
  const local = join('config', 'paceline.local.yaml');
  // What pages add to a configuration, they say in YAML: batches and accounts here.
  place.write(local, `${place.read(local)}\n${place.mapped('listen: { port: 8080 }\nadmin: { port: 8081 }')}\nbatch: { store: { sqlite: ${place.directory}/tmp/batches.sqlite } }\naccounts: { file: ${place.directory}/tmp/energy.sqlite, pricePerKwh: 0.25, currency: EUR, carbonGPerKwh: 380 }\nlogging: { level: warn }\n`);
  place.write('paceline.yaml', place.read(local).replaceAll('profile: profiles/', 'profile: config/profiles/').replace(/^accounts:.*$/m, `accounts: { file: ${place.directory}/tmp/energy.sqlite }`).replace(/^batch:.*$/m, `store: { redisUrl: '${place.mapped('redis://127.0.0.1:6379')}' }`));
});
afterAll(() => place?.close());

/** Whatever ends only when it is told to, and how it is known that it is there. */
const GOES_ON: readonly { readonly match: RegExp; readonly ready: readonly string[] }[] = [
  { match: /paceline -- emulate .*--port 9001/, ready: ['http://127.0.0.1:9001/health', 'http://127.0.0.1:9002/health'] },
  { match: /paceline -- emulate .*--port 8000/, ready: ['http://127.0.0.1:8000/health'] },
  { match: /paceline-agent serve .*quick/, ready: ['/tmp/paceline/quick/agent.sock'] },
  { match: /paceline-agent serve /, ready: ['/tmp/paceline/agent.sock'] },
  { match: /paceline -- serve .*quick/, ready: ['http://127.0.0.1:8181/readyz'] },
  { match: /paceline -- serve .*power/, ready: ['http://127.0.0.1:8281/readyz'] },
  { match: /^npm run -s paceline -- serve /, ready: ['http://127.0.0.1:8081/readyz'] },
  { match: /^redis-server /, ready: ['redis://127.0.0.1:6379'] },
  { match: /^for .*-- serve .* & done$/, ready: ['http://127.0.0.1:8201/readyz', 'http://127.0.0.1:8202/readyz', 'http://127.0.0.1:8203/readyz'] },
];

/** What a reader has by then from elsewhere. */
const BEFORE: readonly { readonly match: RegExp; readonly prepare: () => void | Promise<void> }[] = [
  { match: /paceline -- report .*a\.sqlite/, prepare: () => copyOf('tmp/energy.sqlite', ['a.sqlite', 'b.sqlite']) },
  // The page wants the replica to itself.
  { match: /paceline -- profile /, prepare: () => place.stop(/main\.ts serve /) },
  // … and a page behind it the gateway of the README again.
  { match: /127\.0\.0\.1:8080\/v1\/workflows|x-paceline-workflow/, prepare: served },
];

/** The servers and the gateway of the README, where they are not there (any more). */
async function served(): Promise<void> {
  for (const [command, what] of [
    ['npm run -s paceline -- emulate --profile config/profiles/llama-3.1-70b.h100-tp4.json --replicas 2 --port 9001 --device-dir /tmp/paceline/devices', 'http://127.0.0.1:9001/health'],
    ['npm run -s paceline -- serve --config config/paceline.local.yaml', 'http://127.0.0.1:8081/readyz'],
  ] as const) {
    const there = (): Promise<boolean> => isThere(place.mapped(what)).catch(() => false);
    if (!(await there())) await place.start(place.mapped(command), there);
  }
}

/** With what SQLite has not written into the file itself yet. */
function copyOf(file: string, names: readonly string[]): void {
  const database = new DatabaseSync(join(place.directory, file));
  for (const name of names) database.exec(`VACUUM INTO '${join(place.directory, name)}'`);
  database.close();
}

async function isThere(what: string): Promise<boolean> {
  if (what.startsWith('/')) return existsSync(what);
  if (what.startsWith('redis:')) return (await place.run(`redis-cli -p ${new URL(what).port} ping`, 5_000)).stdout.startsWith('PONG');
  return (await fetch(what)).ok;
}

/** In the place of `file-…` what the last command told that has such a name: `batch_…`, `key-0123456789ab` too. */
function filledIn(command: string): string {
  const wanted = /output_file|\/content/.test(command) ? 'output_file_id' : 'file';
  return command
    .replaceAll('file-…', told.get(wanted) ?? told.get('file') ?? 'file-…')
    .replaceAll('batch_…', told.get('batch') ?? 'batch_…')
    .replaceAll('key-0123456789ab', told.get('key') ?? 'key-0123456789ab');
}

function remember(text: string): void {
  for (const [name, pattern] of [['file', /"id":\s*"(file-[^"]+)"/], ['batch', /"id":\s*"(batch_[^"]+)"/], ['output_file_id', /"output_file_id":\s*"(file-[^"]+)"/], ['key', /(key-[0-9a-f]{12})/]] as const) {
    const id = pattern.exec(text)?.[1];
    if (id !== undefined) told.set(name, id);
  }
}

describe.each(DOCUMENTS)('%s', (document) => {
  const markdown = readFileSync(document, 'utf8');
  const commands = commandsOf(markdown);
  /** Functions that the page has its reader define. */
  const defined: string[] = [];
  // A configuration whose first line says what it is called is there for the commands.
  beforeAll(() => {
    for (const [, name = '', content = ''] of markdown.matchAll(/```yaml\n# (\S+\.yaml)\n([\s\S]*?)```/g)) place.write(name, place.mapped(content));
  });
  if (commands.length === 0) return test('has no commands', () => {});

  test.each(commands)('line $line: $text', { timeout: RUN_WITHIN_MS + 10_000 }, async ({ text }) => {
    const notRun = NOT_RUN.find(({ match }) => match.test(text));
    if (notRun !== undefined) return expect(notRun.look(text), notRun.why).toEqual([]);
    expect(optionsMissing(text)).toEqual([]);
    const command = [...defined, place.mapped(filledIn(text))].join('\n');
    if (/^\w+\(\) \{/.test(text)) defined.push(place.mapped(text));
    const goesOn = GOES_ON.find(({ match }) => match.test(text));
    if (goesOn !== undefined) return place.start(command, async () => (await Promise.all(goesOn.ready.map((what) => isThere(place.mapped(what))))).every(Boolean));
    for (const { match, prepare } of BEFORE) if (match.test(text)) await prepare();
    let outcome = await place.run(command, RUN_WITHIN_MS);
    // A batch takes a while; whoever reads on has its output.
    for (let again = 0; /\/v1\/batches\/batch_…/.test(text) && !outcome.stdout.includes('"completed"') && again < 60; again++) {
      await new Promise((resolve) => setTimeout(resolve, 500));
      outcome = await place.run(command, RUN_WITHIN_MS);
    }
    remember(outcome.stdout);
    expect(outcome, `${command}\n${outcome.stdout.slice(-1_500)}\n${outcome.stderr.slice(-1_500)}`).toMatchObject({ code: 0 });
  });
});

test('commands are read as a shell would: joined, without comments, from fences of sh alone', () => {
  const markdown = "```sh\n# a comment\none --a '#x' \\\n  --b 2   # why\n\ntwo\n```\n```yaml\nkey: value\n```\n```\nnot a command\n```\n";
  expect(commandsOf(markdown)).toEqual([
    { line: 3, text: "one --a '#x' --b 2" },
    { line: 6, text: 'two' },
  ]);
  expect(wordsOf(`a 'b c' "d e" f`)).toEqual(['a', 'b c', 'd e', 'f']);
});

test('an option that a command does not have is noticed', () => {
  expect(optionsMissing('npm run -s paceline -- simulate --rate 3 --no-such-option 1')).toEqual(['simulate has no --no-such-option']);
  expect(optionsMissing('agent/target/release/paceline-agent serve --driver nvml --sokcet x')).toEqual(['serve has no --sokcet']);
});
