// Which Redis, as the configuration says it.

export interface RedisNode {
  readonly host: string;
  readonly port: number;
}

/** What a URL says for a single server, the others say by keys. */
interface Secured {
  readonly username: string | null;
  readonly password: string | null;
  readonly tls: boolean;
}

export type RedisTarget = { /** PEM of who signed the server's certificate; `null`: whom Node trusts. */ readonly ca: string | null } & (
  | { readonly kind: 'single'; readonly url: string }
  | ({ readonly kind: 'sentinel'; readonly name: string; readonly nodes: readonly RedisNode[]; readonly sentinelPassword: string | null } & Secured)
  | ({ readonly kind: 'cluster'; readonly nodes: readonly RedisNode[] } & Secured)
);
