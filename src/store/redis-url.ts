// Where Redis is: from the URL of a configuration to what the client is told, and a text for logs without the password.

export interface RedisAddress {
  readonly host: string;
  readonly port: number;
  readonly tls: boolean;
  readonly username: string | null;
  readonly password: string | null;
  /** For people: never holds the password. */
  readonly shown: string;
}

export class RedisUrlError extends Error {
  override name = 'RedisUrlError';
}

const PORT_DEFAULT = 6379;

/** Throws `RedisUrlError`. Whatever it does not understand is refused: ioredis would let a query override any option. */
export function parseRedisUrl(text: string): RedisAddress {
  const safe = withoutSecrets(text);
  const wanted = 'want redis://[user:password@]host[:port], or rediss:// for TLS';
  // No cause is attached to what is thrown: Node keeps the whole input on its error.
  if (!URL.canParse(text)) throw new RedisUrlError(`redis url '${safe}': not a URL; ${wanted}`);
  const url = new URL(text);
  if (url.protocol !== 'redis:' && url.protocol !== 'rediss:') throw new RedisUrlError(`redis url '${safe}': got protocol '${url.protocol}'; ${wanted}`);
  if (url.hostname === '') throw new RedisUrlError(`redis url '${safe}': no host; ${wanted}`);
  // A database that cannot be selected would leave us in number 0 without a word; fleets have names for that.
  if (!['', '/', '/0'].includes(url.pathname)) throw new RedisUrlError(`redis url '${safe}': got '${url.pathname}' after the host, but only database 0 is used; fleets are kept apart by their names`);
  if (url.search !== '' || url.hash !== '') throw new RedisUrlError(`redis url '${safe}': nothing may follow the host and port; ${wanted}`);
  const port = url.port === '' ? PORT_DEFAULT : Number(url.port);
  let username: string;
  let password: string;
  try {
    username = decodeURIComponent(url.username);
    password = decodeURIComponent(url.password);
  } catch {
    throw new RedisUrlError(`redis url '${safe}': a % in user or password is not followed by two hex digits; write %25 for %`);
  }
  return {
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port,
    tls: url.protocol === 'rediss:',
    username: username === '' ? null : username,
    password: password === '' ? null : password,
    shown: `${url.protocol}//${password === '' ? '' : '***@'}${url.hostname}:${port}`,
  };
}

/** All that stands before the last @ may be one, and so may a query. */
function withoutSecrets(text: string): string {
  const [beforeQuery = ''] = text.split('?', 1);
  return `${beforeQuery.replace(/^([a-z]+:\/\/)?.*@/s, (_, protocol: string | undefined) => `${protocol ?? ''}***@`)}${beforeQuery.length < text.length ? '?***' : ''}`;
}
