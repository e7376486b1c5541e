// `paceline keys`: makes, lists and revokes the API keys of tenants, in the file that the configuration names as `keysFile`.
import { changeKeys, isGood, type KeyRecord, KeysFileError, makeKey, readKeys } from '../config/keys-file.ts';
import { defineCommand, UsageError } from './command.ts';

const ACTIONS = ['create', 'list', 'revoke', 'prune'] as const;

export const command = defineCommand({
  name: 'keys',
  summary: `Keeps the API keys of tenants: ${ACTIONS.join(', ')}`,
  positionals: ['ACTION'],
  options: {
    file: { type: 'text', value: 'FILE', help: "the configuration's keysFile; made where it is not there" },
    tenant: { type: 'text', value: 'NAME', help: 'create: whose key; list: only those of this tenant' },
    note: { type: 'text', value: 'TEXT', help: 'create: what it is for; up to 200 characters' },
    expires: { type: 'text', value: 'LENGTH', help: 'create: for how long it is good, such as 90d, 12h or 30m; default: for ever' },
    id: { type: 'text', value: 'ID', help: 'revoke: which' },
    json: { type: 'flag', help: 'JSON instead of text' },
  },
  examples: ['paceline keys create --file keys.json --tenant acme --expires 90d', 'paceline keys list --file keys.json', 'paceline keys revoke --file keys.json --id key-0123456789ab'],
  run: async (options, [action]) => {
    const { file } = options;
    if (!ACTIONS.some((known) => known === action)) throw new UsageError(`keys: got '${action ?? ''}', want one of ${ACTIONS.join(', ')}; see: paceline keys --help`);
    if (file === undefined) throw new UsageError('--file FILE is missing; see: paceline keys --help');
    try {
      switch (action) {
        case 'create':
          return create(file, options);
        case 'list':
          return list(file, options);
        case 'revoke':
          return revoke(file, options);
        case 'prune':
          return prune(file);
        default:
          throw new UsageError(`keys: got '${action ?? ''}', want one of ${ACTIONS.join(', ')}`);
      }
    } catch (error) {
      if (error instanceof KeysFileError) throw new UsageError(error.message);
      throw error;
    }
  },
});

interface Options {
  readonly tenant: string | undefined;
  readonly note: string | undefined;
  readonly expires: string | undefined;
  readonly id: string | undefined;
  readonly json: boolean;
}

function create(file: string, { tenant, note, expires, json }: Options): number {
  if (tenant === undefined || !/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(tenant)) throw new UsageError(`--tenant: got '${tenant ?? ''}', want the name of a tenant of the configuration`);
  if (note !== undefined && note.length > 200) throw new UsageError(`--note: got ${note.length} characters, at most 200`);
  const nowUnixMs = Date.now();
  const { apiKey, record } = makeKey({ tenant, note: note ?? null, expiresAtUnixMs: expires === undefined ? null : nowUnixMs + lengthMs(expires), nowUnixMs });
  changeKeys(file, (keys) => [...keys, record]);
  // The key alone on standard output, for scripts; it is nowhere else.
  if (json) process.stdout.write(`${JSON.stringify({ id: record.id, tenant, apiKey, ...(record.expiresAt === undefined ? {} : { expiresAt: record.expiresAt }) })}\n`);
  else {
    process.stderr.write(`${record.id} for ${tenant}${record.expiresAt === undefined ? '' : `, until ${record.expiresAt}`}. The key is shown this once:\n`);
    process.stdout.write(`${apiKey}\n`);
  }
  return 0;
}

function list(file: string, { tenant, json }: Options): number {
  const keys = readKeys(file).filter((key) => tenant === undefined || key.tenant === tenant);
  if (json) process.stdout.write(`${JSON.stringify(keys.map(({ id, tenant: of, createdAt, expiresAt, revokedAt, note }) => ({ id, tenant: of, createdAt, expiresAt, revokedAt, note })))}\n`);
  else if (keys.length === 0) process.stdout.write('no keys\n');
  else for (const key of keys) process.stdout.write(`${key.id}  ${key.tenant.padEnd(20)}  ${stateOf(key).padEnd(34)}  made ${key.createdAt}${key.note === undefined ? '' : `  ${key.note}`}\n`);
  return 0;
}

function stateOf(key: KeyRecord): string {
  if (key.revokedAt !== undefined) return `revoked ${key.revokedAt}`;
  if (key.expiresAt === undefined) return 'good';
  return isGood(key, Date.now()) ? `good until ${key.expiresAt}` : `expired ${key.expiresAt}`;
}

function revoke(file: string, { id }: Options): number {
  if (id === undefined) throw new UsageError('--id ID is missing; paceline keys list shows them');
  changeKeys(file, (keys) => {
    if (!keys.some((key) => key.id === id)) throw new UsageError(`--id: no key '${id}' in ${file}`);
    return keys.map((key) => (key.id === id && key.revokedAt === undefined ? { ...key, revokedAt: new Date().toISOString() } : key));
  });
  process.stderr.write(`${id} is revoked; gateways that read this file take it in within a second or two\n`);
  return 0;
}

/** Those that let nobody in any more are forgotten. */
function prune(file: string): number {
  let gone = 0;
  changeKeys(file, (keys) => {
    const left = keys.filter((key) => isGood(key, Date.now()));
    gone = keys.length - left.length;
    return left;
  });
  process.stderr.write(`${gone} revoked or expired ${gone === 1 ? 'key is' : 'keys are'} gone\n`);
  return 0;
}

const UNIT_MS: Readonly<Record<string, number>> = { m: 60_000, h: 3_600_000, d: 86_400_000 };

function lengthMs(text: string): number {
  const [, number, unit = ''] = /^(\d{1,6})(m|h|d)$/.exec(text) ?? [];
  if (number === undefined || Number(number) === 0) throw new UsageError(`--expires: got '${text}', want a length such as 90d, 12h or 30m`);
  return Number(number) * (UNIT_MS[unit] as number);
}
