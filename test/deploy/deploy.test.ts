// What stands in `deploy/` fits the gateway that there is: its configuration loads and starts, probes hit paths that exist, ports, labels
// and times agree. What their own tools say of the files: `make test-deploy`.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { loadProfile } from '../../src/profile-file.ts';
import type { GatewayUnderTest } from '../fixtures/gateway-under-test.ts';
import { eventually, startConfigured } from '../fixtures/gateway-under-test.ts';
import { startRedis } from '../fixtures/redis.ts';
import { startServed } from '../fixtures/served.ts';
import { createStubUpstream } from '../fixtures/stub-upstream.ts';
import type { DeployedConfig, Tree } from './deploy-files.ts';
import { deployedConfigs, documentsOf, ENVIRONMENT, here, load, objectOf, yamlOf } from './deploy-files.ts';

const opened: { close(): Promise<unknown> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

describe.each(deployedConfigs())('the configuration for $name', (deployed) => {
  test('loads, and its profiles are in the image', () => {
    const config = load(deployed);
    expect(config.replicas.length).toBeGreaterThan(0);
    for (const { profilePath } of config.replicas) expect(loadProfile(here(profilePath)).points.length).toBeGreaterThan(0);
  });

  test('starts a gateway whose probes answer, and whose admin listener wants the key', async () => {
    const gateway = await startDeployed(deployed);
    for (const path of ['/livez', '/readyz', '/startupz']) await eventually(async () => (await fetch(`${gateway.probesUrl}${path}`)).status === 200);
    expect((await fetch(`${gateway.adminUrl}/metrics`)).status).toBe(401);
    expect((await fetch(`${gateway.adminUrl}/metrics`, { headers: { authorization: `Bearer ${ENVIRONMENT.PACELINE_ADMIN_KEY}` } })).status).toBe(200);
  });
});

/** On free ports of the loopback, in front of stub servers, without a store. */
async function startDeployed(deployed: DeployedConfig): Promise<GatewayUnderTest> {
  const config = load(deployed);
  const upstream = await createStubUpstream();
  opened.push(upstream);
  const gateway = await startConfigured({
    ...config,
    listen: { ...config.listen, address: { kind: 'port', host: '127.0.0.1', port: 0 } },
    admin: { ...config.admin, host: '127.0.0.1', port: 0 },
    probes: config.probes === null ? null : { ...config.probes, host: '127.0.0.1', port: 0 },
    replicas: config.replicas.map((replica) => ({ ...replica, origin: upstream.url, profilePath: here(replica.profilePath) })),
    timeouts: { ...config.timeouts, readinessLagMs: 0, drainMs: 0 },
    store: null,
    logging: { level: 'silent', requests: false },
  });
  opened.push(gateway);
  return gateway;
}

describe('kubernetes', () => {
  const documents = [...documentsOf('deploy/kubernetes/gateway.yaml'), ...documentsOf('deploy/kubernetes/gateway-autoscaler.yaml'), ...documentsOf('deploy/kubernetes/gateway-servicemonitor.yaml')];
  const deployment = objectOf(documents, 'Deployment');
  const pod = deployment.spec.template;
  const [container] = pod.spec.containers;
  const config = load(deployedConfigs()[0] as DeployedConfig);
  const portOf = (name: string): number => container.ports.find((port: Tree) => port.name === name).containerPort as number;

  test('ports are those of the configuration, on addresses that a pod is reached at', () => {
    const { address } = config.listen;
    expect(address).toEqual({ kind: 'port', host: '0.0.0.0', port: portOf('http') });
    expect(config.admin).toMatchObject({ host: '0.0.0.0', port: portOf('admin') });
    expect(config.probes).toMatchObject({ host: '0.0.0.0', port: portOf('probes') });
  });

  test('probes ask the listener of the probes for paths that it has', async () => {
    const gateway = await startDeployed(deployedConfigs()[0] as DeployedConfig);
    for (const kind of ['startupProbe', 'livenessProbe', 'readinessProbe']) {
      const { httpGet } = container[kind];
      expect(httpGet.port).toBe('probes');
      await eventually(async () => (await fetch(`${gateway.probesUrl}${httpGet.path}`)).status === 200);
    }
    expect([container.startupProbe, container.livenessProbe, container.readinessProbe].map(({ httpGet }) => httpGet.path)).toEqual(['/startupz', '/livez', '/readyz']);
  });

  test('a pod gets the time that its gateway takes to leave', () => {
    expect(pod.spec.terminationGracePeriodSeconds * 1_000).toBeGreaterThanOrEqual(config.timeouts.readinessLagMs + config.timeouts.drainMs + 5_000);
    expect(config.timeouts.readinessLagMs).toBeGreaterThanOrEqual(2 * container.readinessProbe.periodSeconds * 1_000);
    expect(container.lifecycle).toBeUndefined();
  });

  test('a pod has no privilege, no account and nothing to write to', () => {
    expect(pod.spec).toMatchObject({ automountServiceAccountToken: false, securityContext: { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } } });
    expect(pod.spec.securityContext.runAsUser).toBeGreaterThan(0);
    expect(container.securityContext).toEqual({ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } });
    expect(pod.spec.volumes.map((volume: Tree) => Object.keys(volume).filter((key) => key !== 'name'))).toEqual([['configMap']]);
    expect(container.resources.requests).toHaveProperty('memory');
    expect(container.resources.limits).not.toHaveProperty('cpu');
  });

  test('what the configuration takes from the environment is in the Secret that the file tells to make', () => {
    const named = [...objectOf(documents, 'ConfigMap').data['paceline.yaml'].matchAll(/(?:keyEnv|apiKeyEnv|redisUrlEnv): (\w+)/g)].map(([, name]: string[]) => name);
    expect(named.length).toBeGreaterThan(2);
    const text = readFileSync('deploy/kubernetes/gateway.yaml', 'utf8');
    for (const name of named) expect(text).toContain(`--from-literal=${name}=`);
    expect(container.envFrom).toEqual([{ secretRef: { name: 'paceline-gateway' } }]);
    expect(text).not.toMatch(/^kind: Secret/m);
  });

  test('whatever selects pods selects these, and names ports that they have', () => {
    const selectors = [
      deployment.spec.selector.matchLabels,
      ...['paceline-gateway', 'paceline-gateway-admin'].map((name) => objectOf(documents, 'Service', name).spec.selector),
      objectOf(documents, 'PodDisruptionBudget').spec.selector.matchLabels,
      objectOf(documents, 'NetworkPolicy').spec.podSelector.matchLabels,
      ...pod.spec.topologySpreadConstraints.map((constraint: Tree) => constraint.labelSelector.matchLabels),
    ];
    for (const selector of selectors) expect(pod.metadata.labels).toMatchObject(selector);
    const names = container.ports.map(({ name }: Tree) => name);
    for (const name of ['paceline-gateway', 'paceline-gateway-admin']) for (const { targetPort } of objectOf(documents, 'Service', name).spec.ports) expect(names).toContain(targetPort);
    for (const { ports } of objectOf(documents, 'NetworkPolicy').spec.ingress) for (const { port } of ports) expect(names).toContain(port);
    const { selector, endpoints } = objectOf(documents, 'ServiceMonitor').spec;
    expect(objectOf(documents, 'Service', 'paceline-gateway-admin').metadata.labels).toMatchObject(selector.matchLabels);
    expect(objectOf(documents, 'Service').metadata.labels).not.toMatchObject(selector.matchLabels);
    expect(endpoints[0].port).toBe('admin');
    expect(objectOf(documents, 'HorizontalPodAutoscaler').spec.scaleTargetRef).toEqual({ apiVersion: 'apps/v1', kind: 'Deployment', name: 'paceline-gateway' });
    for (const document of documents) if (document.kind !== 'Namespace') expect(document.metadata.namespace).toBe('paceline-gateway');
  });

  test('the policy of agents names the user that gateways run as', () => {
    const policy = JSON.parse(objectOf(documentsOf('deploy/kubernetes/agent-daemonset.yaml'), 'ConfigMap', 'paceline-agent-policy').data['agent-policy.json']) as Tree;
    expect(policy.principals[0].uids).toEqual([pod.spec.securityContext.runAsUser]);
  });
});

describe('compose', () => {
  const compose = yamlOf('deploy/compose.yaml');
  const { gateway, models } = compose.services;

  test('what it starts serves: the emulated servers, Redis and the gateway, by its own commands', async () => {
    const redis = await startRedis();
    opened.push({ close: () => redis.stop() });
    const directory = mkdtempSync(join(tmpdir(), 'paceline-compose-'));
    opened.push({ close: async () => rmSync(directory, { recursive: true, force: true }) });
    const command = models.command as string[];
    const valueOf = (option: string): string => command[command.indexOf(option) + 1] as string;
    const there: Record<string, string> = { [valueOf('--profile')]: here(valueOf('--profile')), [valueOf('--host')]: '127.0.0.1', [valueOf('--port')]: '0', [valueOf('--device-dir')]: directory };
    const emulator = await startServed(['src/main.ts', ...command.map((word) => there[word] ?? word)]);
    opened.push(emulator);
    const { replicas } = JSON.parse(emulator.stdout()) as { replicas: { url: string }[] };
    let text = readFileSync(`deploy/${String(gateway.volumes[0]).split(':')[0]}`, 'utf8').replaceAll('/app/config/', here('/app/config/').concat('/'));
    for (const [index, { url }] of replicas.entries()) text = text.replace(`http://models:${Number(valueOf('--port')) + index}`, url);
    expect(text).not.toContain('http://models:');
    text = text.replace('0.0.0.0, port: 8080', '127.0.0.1, port: 0').replace('0.0.0.0, port: 8081', '127.0.0.1, port: 0').replace('port: 8082', 'port: 0');
    writeFileSync(join(directory, 'paceline.yaml'), text);
    const served = await startServed(['src/main.ts', 'serve', '--config', join(directory, 'paceline.yaml')], { environment: { PACELINE_ADMIN_KEY: 'local-only', REDIS_URL: redis.url } });
    opened.push(served);
    const [program, flag, script] = (gateway.healthcheck.test as string[]).slice(1);
    const isHealthy = (): boolean => spawnSync(program === 'node' ? process.execPath : '', [flag as string, (script as string).replace('http://127.0.0.1:8082', served.probesUrl)]).status === 0;
    await eventually(isHealthy, 15_000);
    const answer = await fetch(`${served.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ model: 'meta-llama/Llama-3.1-8B-Instruct', max_tokens: 3, messages: [{ role: 'user', content: 'Hello!' }] }) });
    expect(answer.status).toBe(200);
    const status = await (await fetch(`${served.adminUrl}/paceline/status`, { headers: { authorization: 'Bearer local-only' } })).text();
    expect(JSON.parse(status)).toMatchObject({ fleetLoad: { kind: 'connected' } });
    served.signal('SIGTERM');
    expect(await served.exited).toBe(0);
    expect(isHealthy()).toBe(false);
  });

  test('ports that are published are of this machine alone, and the time to leave is enough', () => {
    for (const port of gateway.ports) expect(port).toMatch(/^127\.0\.0\.1:/);
    const config = load(deployedConfigs()[2] as DeployedConfig);
    expect(Number.parseInt(gateway.stop_grace_period as string, 10) * 1_000).toBeGreaterThanOrEqual(config.timeouts.readinessLagMs + config.timeouts.drainMs + 5_000);
    expect(Object.keys(gateway.environment)).toEqual(['PACELINE_ADMIN_KEY', 'REDIS_URL']);
  });
});

describe('systemd', () => {
  const systemd = spawnSync('systemd-analyze', ['--version']).error === undefined;
  const units = ['paceline-agent.service', 'paceline-gateway.service'];
  const unit = readFileSync('deploy/systemd/paceline-gateway.service', 'utf8');

  test.skipIf(!systemd).each(units)('%s is accepted by systemd-analyze verify (skipped where systemd is not installed)', (name) => {
    const directory = mkdtempSync(join(tmpdir(), 'paceline-units-'));
    opened.push({ close: async () => rmSync(directory, { recursive: true, force: true }) });
    // What they start is not installed on a machine of tests.
    for (const file of units) writeFileSync(join(directory, file), readFileSync(`deploy/systemd/${file}`, 'utf8').replaceAll(/=(\/usr\/local\/bin\/paceline-agent|\/usr\/bin\/node) /g, '=/bin/true '));
    const { status, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', join(directory, name)], { encoding: 'utf8' });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  });

  test.skipIf(!systemd).each([
    ['paceline-agent.service', 13],
    ['paceline-gateway.service', 14],
  ])('%s is exposed no more than %i tenths (skipped where systemd is not installed)', (name, tenths) => {
    const { status, stdout } = spawnSync('systemd-analyze', ['security', '--offline=true', `--threshold=${tenths}`, '--no-pager', `deploy/systemd/${name}`], { encoding: 'utf8' });
    expect(status, stdout.slice(-200)).toBe(0);
  });

  test('the gateway is started by a command that there is, reads again on a reload, and gets the time that it takes to leave', () => {
    const config = load(deployedConfigs()[3] as DeployedConfig);
    expect(unit).toContain('ExecStart=/usr/bin/node /opt/paceline/dist/main.js serve --config /etc/paceline/gateway.yaml');
    expect(unit).toContain('ExecReload=/bin/kill -HUP $MAINPID');
    const stopMs = Number(/^TimeoutStopSec=(\d+)$/m.exec(unit)?.[1]) * 1_000;
    expect(stopMs).toBeGreaterThanOrEqual(config.timeouts.readinessLagMs + config.timeouts.drainMs + 5_000);
    expect(Number(/^LimitNOFILE=(\d+)$/m.exec(unit)?.[1])).toBeGreaterThan(2 * config.limits.connectionsMax);
    expect(readFileSync('deploy/systemd/gateway.env.example', 'utf8')).toContain('PACELINE_ADMIN_KEY=');
  });
});

describe('the image', () => {
  const dockerfile = readFileSync('Dockerfile', 'utf8');

  test('has the ports of the deployments, a user of its own and what it copies is there', () => {
    expect(/^EXPOSE (.*)$/m.exec(dockerfile)?.[1]).toBe('8080 8081 8082');
    expect(dockerfile).toMatch(/^USER [1-9]\d*:[1-9]\d*$/m);
    for (const [, sources = ''] of dockerfile.matchAll(/^COPY (?!--from)(.*) \S+$/gm)) for (const source of sources.split(' ')) expect(existsSync(source), source).toBe(true);
    expect(dockerfile).toContain('ENTRYPOINT ["node", "dist/main.js"]');
  });
});

test('no file of the deployments holds a secret', () => {
  const files = execFileSync('find', ['deploy', '-type', 'f'], { encoding: 'utf8' }).trim().split('\n');
  expect(files.length).toBeGreaterThan(20);
  for (const file of files) expect(readFileSync(file, 'utf8'), file).not.toMatch(/-----BEGIN|\bsk-[A-Za-z0-9]{8}|rediss?:\/\/:[^@\s]{4,}@/);
});
