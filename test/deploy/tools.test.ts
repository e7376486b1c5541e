// What the tools of Kubernetes, Helm and Compose say of the files in `deploy/`. They are built by `make test-deploy` (Go, a minute or two);
// where they are not, these tests are skipped.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseConfig } from '../../src/config.ts';
import type { Tree } from './deploy-files.ts';
import { documentsOf, ENVIRONMENT, objectOf, treesOf, yamlOf } from './deploy-files.ts';

const BIN = resolve('test/deploy/check/bin');
const CHART = 'deploy/helm/paceline';
/** Helm built by `go install` believes in a Kubernetes of its own. */
const KUBERNETES = ['--kube-version', '1.31.0'];
const built = existsSync(join(BIN, 'helm')) && existsSync(join(BIN, 'deploy-check'));
if (!built) process.stderr.write('deploy: helm and deploy-check are not built, so their tests are skipped; `make test-deploy` builds them and runs them\n');

let directory: string;
beforeAll(() => void (directory = mkdtempSync(join(tmpdir(), 'paceline-deploy-'))));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function run(program: 'helm' | 'deploy-check', ...arguments_: string[]): { readonly status: number | null; readonly stdout: string; readonly stderr: string } {
  return spawnSync(join(BIN, program), arguments_, { encoding: 'utf8', env: { PATH: '/nowhere', HOME: directory } });
}

function check(kind: 'kubernetes' | 'compose', text: string): { readonly status: number | null; readonly stderr: string } {
  const file = join(directory, 'checked.yaml');
  writeFileSync(file, text);
  return run('deploy-check', kind, file);
}

function render(values: object = {}): { readonly status: number | null; readonly stdout: string; readonly stderr: string } {
  const file = join(directory, 'values.yaml');
  writeFileSync(file, JSON.stringify(values));
  return run('helm', 'template', 'paceline-gateway', CHART, '--namespace', 'paceline-gateway', '--values', file, ...KUBERNETES);
}

describe.skipIf(!built)('kubernetes', () => {
  test.each(readdirSync('deploy/kubernetes').map((name) => `deploy/kubernetes/${name}`))('%s holds objects of the API and no field that it does not have', (path) => {
    expect(run('deploy-check', 'kubernetes', path)).toMatchObject({ status: 0, stderr: '' });
  });

  test.each([
    ['a field that does not exist', 'apiVersion: v1\nkind: Service\nmetadata: { name: a }\nspec: { prots: [] }\n', /unknown field "spec\.prots"/],
    ['a field of another type', 'apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: a }\nspec: { replicas: two }\n', /cannot unmarshal/],
    ['a field given twice', 'apiVersion: v1\nkind: Service\nmetadata: { name: a }\nspec: { type: ClusterIP, type: NodePort }\n', /already set|duplicate/],
    ['a kind that does not exist', 'apiVersion: v1\nkind: Servant\nmetadata: { name: a }\n', /no kind "Servant"/],
  ])('the check finds %s', (_what, text, expected) => {
    const { status, stderr } = check('kubernetes', text);
    expect(status).toBe(1);
    expect(stderr).toMatch(expected);
  });
});

describe.skipIf(!built)('compose', () => {
  test('deploy/compose.yaml is what docker compose reads', () => {
    expect(run('deploy-check', 'compose', 'deploy/compose.yaml')).toMatchObject({ status: 0, stdout: 'deploy/compose.yaml: ok: [gateway models redis]\n' });
  });

  test.each([
    ['a key that does not exist', 'services: { a: { image: a, comand: [b] } }\n', /comand/],
    ['a service that does not exist', 'services: { a: { image: a, depends_on: [b] } }\n', /undefined service/],
  ])('the check finds %s', (_what, text, expected) => {
    const { status, stderr } = check('compose', text);
    expect(status).toBe(1);
    expect(stderr).toMatch(expected);
  });
});

describe.skipIf(!built)('helm', () => {
  test('the chart passes lint, warnings included', () => {
    const { status, stdout } = run('helm', 'lint', '--strict', CHART, ...KUBERNETES);
    expect(status, stdout).toBe(0);
  });

  test('as it stands it renders what deploy/kubernetes says, object by object', () => {
    const { stdout, stderr } = render({ autoscaling: { enabled: true }, serviceMonitor: { enabled: true }, image: { tag: 'latest' } });
    expect(check('kubernetes', stdout)).toMatchObject({ status: 0, stderr: '' });
    expect(stderr).toBe('');
    const rendered = treesOf(stdout).map(withoutHelm);
    const plain = ['gateway', 'gateway-autoscaler', 'gateway-servicemonitor'].flatMap((name) => documentsOf(`deploy/kubernetes/${name}.yaml`)).filter(({ kind }) => kind !== 'Namespace');
    // Whoever autoscales takes it out, as the file says.
    delete objectOf(plain, 'Deployment').spec.replicas;
    for (const trees of [rendered, plain]) {
      const { data } = objectOf(trees, 'ConfigMap');
      data['paceline.yaml'] = parseConfig(data['paceline.yaml'] as string, { fileName: 'paceline.yaml', directory: '/etc/paceline', environment: ENVIRONMENT });
    }
    const byName = (trees: readonly Tree[]) => Object.fromEntries(trees.map((tree) => [`${tree.kind} ${tree.metadata.name}`, tree]));
    expect(byName(rendered)).toEqual(byName(plain));
  });

  test('with everything that it can be given it renders objects of the API', () => {
    const everything = {
      image: { digest: `sha256:${'a'.repeat(64)}`, pullSecrets: [{ name: 'registry' }] },
      profiles: { 'own.json': '{}' },
      agentSocketDir: '/run/paceline',
      secretName: 'other',
      service: { type: 'LoadBalancer', port: 443, annotations: { a: 'b' } },
      networkPolicy: { clients: [{ podSelector: {} }], monitoring: [], egress: [] },
      podAnnotations: { a: 'b' },
      nodeSelector: { 'kubernetes.io/hostname': 'gpu-0' },
      tolerations: [{ key: 'nvidia.com/gpu', operator: 'Exists' }],
      affinity: { nodeAffinity: {} },
      priorityClassName: 'high',
    };
    const { stdout } = render(everything);
    expect(check('kubernetes', stdout)).toMatchObject({ status: 0, stderr: '' });
    const { spec } = objectOf(treesOf(stdout), 'Deployment').spec.template;
    expect(spec.volumes).toContainEqual({ name: 'agent', hostPath: { path: '/run/paceline', type: 'Directory' } });
    expect(spec.containers[0]).toMatchObject({ image: `paceline@sha256:${'a'.repeat(64)}`, envFrom: [{ secretRef: { name: 'other' } }] });
  });

  test('with everything switched off it renders what is left', () => {
    const { stdout } = render({ podDisruptionBudget: { enabled: false }, networkPolicy: { enabled: false }, replicaCount: 1, config: { store: null } });
    expect(treesOf(stdout).map(({ kind }) => kind).sort()).toEqual(['ConfigMap', 'Deployment', 'Service', 'Service']);
  });

  test('a pod gets the time that its configuration takes to leave', () => {
    const graceOf = (timeouts: object): number => objectOf(treesOf(render({ config: { timeouts } }).stdout), 'Deployment').spec.template.spec.terminationGracePeriodSeconds as number;
    expect(graceOf({ readinessLagMs: 0, drainMs: 0 })).toBe(10);
    expect(graceOf({ readinessLagMs: 1, drainMs: 3_600_000 })).toBe(3_611);
    expect(graceOf({ readinessLagMs: null, drainMs: null })).toBe(40);
  });

  test.each([
    ['an unknown value', { replicas: 3 }, /replicas/],
    ['a value of another type', { replicaCount: 'two' }, /replicaCount/],
    ['a gateway as root', { runAsUser: 0 }, /runAsUser/],
    ['a port that the pod does not have', { config: { listen: { port: 9090 } } }, /config\.listen: got .* want host 0\.0\.0\.0 and port 8080/],
    ['probes that nobody reaches', { config: { probes: { host: '127.0.0.1' } } }, /config\.probes: got .* want host 0\.0\.0\.0 and port 8082/],
    ['an admin listener without a key', { config: { admin: { keyEnv: null } } }, /config\.admin: want keyEnv or keySha256/],
    ['several gateways without a store', { config: { store: null } }, /config\.store: missing/],
  ])('%s is refused', (_what, values, expected) => {
    const { status, stderr } = render(values);
    expect(status).toBe(1);
    expect(stderr).toMatch(expected);
  });

  test("its version of the gateway is the repository's", () => {
    expect(yamlOf(`${CHART}/Chart.yaml`).appVersion).toBe((yamlOf('package.json') as { version: string }).version);
  });
});

/** Less what only says that Helm has made it. */
function withoutHelm(tree: Tree): Tree {
  for (const metadata of [tree.metadata, tree.spec?.template?.metadata]) {
    for (const label of ['helm.sh/chart', 'app.kubernetes.io/managed-by', 'app.kubernetes.io/version']) delete metadata?.labels?.[label];
    delete metadata?.annotations?.['checksum/config'];
    if (metadata?.annotations !== undefined && Object.keys(metadata.annotations as object).length === 0) delete metadata.annotations;
  }
  return tree;
}
