// `paceline serve`: the gateway, until a signal ends it.
import { once } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { loadConfig, parsePolicy } from '../config.ts';
import type { Config } from '../config.ts';
import { watchFiles } from '../config/file-watch.ts';
import { ConfigError } from '../config/config-problems.ts';
import type { Gateway } from '../gateway.ts';
import { createGateway } from '../gateway.ts';
import { ProfileFileError } from '../profile-file.ts';
import { defineCommand, UsageError } from './command.ts';

export const command = defineCommand({
  name: 'serve',
  summary: 'Serves OpenAI requests in front of model servers, at the clocks their deadlines allow',
  options: {
    config: { type: 'text', value: 'FILE', help: 'the configuration; see config/paceline.example.yaml' },
    policy: { type: 'text', value: 'POLICY', help: "instead of the configured one: 'paceline', 'max-clock' or 'static:POINT'" },
    listen: { type: 'text', value: 'HOST:PORT', help: 'instead of the configured address' },
    admin: { type: 'text', value: 'HOST:PORT', help: 'instead of the configured address of metrics and status' },
  },
  examples: ['paceline serve --config config/paceline.example.yaml', 'paceline serve --config paceline.yaml --policy max-clock --listen 0.0.0.0:8080'],
  run: async (options) => {
    // The young generation stays small: grown to its usual tens of megabytes it costs some 30 KB for every idle stream, and hardly
    // saves time, since most of what a request leaves behind dies at once (bench/results/overhead/PROFILE.md).
    setFlagsFromString('--semi-space-growth-factor=1');
    if (options.config === undefined) throw new UsageError('--config FILE is missing; see: paceline serve --help');
    // Signals are caught before anything is opened: one that comes early must still give the lease back.
    const signals = [once(process, 'SIGTERM'), once(process, 'SIGINT')];
    const path = options.config;
    let config = overridden(readConfig(path), options);
    // From here on no change is missed, nor does a signal end the process: what comes before there is a gateway is done once there is one.
    let gateway: Gateway | null = null;
    let changedEarly = false;
    const reload = (): void => {
      if (gateway === null) {
        changedEarly = true;
        return;
      }
      let next = config;
      watch.seen();
      const taken = gateway.reload(() => {
        next = overridden(loadConfig(path), options);
        return next;
      });
      if (taken) config = next;
    };
    const watch = watchFiles(() => [path, ...(config.keysPath === null ? [] : [config.keysPath])], { everyMs: LOOK_EVERY_MS, changed: reload });
    // A terminal that closes takes its gateway with it; a supervisor that sends it means "read again".
    if (process.stdout.isTTY) signals.push(once(process, 'SIGHUP'));
    else process.on('SIGHUP', () => {
      reload();
      gateway?.reloadCertificate();
    });
    gateway = await createGateway(config).catch(refuseUnusable);
    if (changedEarly) reload();
    process.stdout.write(`${JSON.stringify({ url: gateway.url, adminUrl: gateway.adminUrl, ...(gateway.probesUrl === null ? {} : { probesUrl: gateway.probesUrl }) })}\n`);
    await Promise.race(signals);
    watch.close();
    await gateway.close();
    return 0;
  },
});

/** How often files are looked at: an editor's two writes are one change, and a revoked key is soon of no use. */
const LOOK_EVERY_MS = 1_000;

function readConfig(path: string): Config {
  try {
    return loadConfig(path);
  } catch (error) {
    return refuseUnusable(error);
  }
}

/** What its user can mend is one line and exit code 2; anything else is a fault of ours and keeps its stack. */
function refuseUnusable(error: unknown): never {
  const taken = error instanceof Error && 'code' in error && ['EADDRINUSE', 'EACCES', 'EADDRNOTAVAIL', 'ENOTFOUND'].includes(String(error.code));
  if (error instanceof ConfigError || error instanceof ProfileFileError || taken) throw new UsageError(error.message);
  throw error;
}

function overridden(config: Config, options: { readonly policy: string | undefined; readonly listen: string | undefined; readonly admin: string | undefined }): Config {
  const policy = options.policy === undefined ? config.planner.policy : parsePolicy(options.policy);
  if (policy === null) throw new UsageError(`--policy: got '${options.policy}', allowed: paceline, max-clock, static:POINT`);
  return {
    ...config,
    planner: { ...config.planner, policy },
    listen: options.listen === undefined ? config.listen : { ...config.listen, address: { kind: 'port', ...address('listen', options.listen) } },
    admin: options.admin === undefined ? config.admin : { ...config.admin, ...address('admin', options.admin) },
  };
}

/** `host:port`, `[v6]:port` or a port alone, which keeps to this machine. */
function address(option: string, text: string): { readonly host: string; readonly port: number } {
  const match = /^(?:(\[[0-9a-f:.]+\]|[^:[\]]+):)?(\d{1,5})$/i.exec(text);
  const port = Number(match?.[2] ?? Number.NaN);
  if (match === null || port > 65_535) throw new UsageError(`--${option}: got '${text}', want HOST:PORT`);
  return { host: (match[1] ?? '127.0.0.1').replace(/^\[|\]$/g, ''), port };
}
