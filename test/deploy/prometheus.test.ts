// The rules for Prometheus and the dashboard for Grafana: Prometheus' own tool reads them, each alert fires when it should, and nothing is
// asked for that a gateway with traffic does not tell.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { eventually, PROFILE, startConfigured, testConfig } from '../fixtures/gateway-under-test.ts';
import { promtool } from '../fixtures/promtool.ts';
import { createStubAgent } from '../fixtures/stub-agent.ts';
import { createStubUpstream } from '../fixtures/stub-upstream.ts';

const RULES = readdirSync('deploy/prometheus').map((name) => `deploy/prometheus/${name}`);
const ALERT_TESTS = 'test/deploy/prometheus-alerts.yaml';

interface Rule {
  readonly alert?: string;
  readonly record?: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels?: { readonly severity?: string };
  readonly annotations?: { readonly summary?: string };
}
interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly targets?: readonly { readonly expr: string }[];
}

const rules = RULES.flatMap((path) => (parse(readFileSync(path, 'utf8')) as { groups: { rules: Rule[] }[] }).groups.flatMap((group) => group.rules));
const alerts = rules.filter(({ alert }) => alert !== undefined);
const recorded = new Set(rules.flatMap(({ record }) => record ?? []));
const dashboard = JSON.parse(readFileSync('deploy/grafana/paceline.json', 'utf8')) as { readonly panels: readonly Panel[]; readonly templating: { readonly list: readonly { readonly name: string }[] } };
const panelExpressions = dashboard.panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => ({ title, expr })));

let directory: string;
let page: string;
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'paceline-prometheus-'));
  page = await pageAfterTraffic();
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** Of a gateway with an agent, a tenant that has limits, streams, answers, and refusals. */
async function pageAfterTraffic(): Promise<string> {
  writeFileSync(join(directory, 'watts.csv'), 'time,value\n2026-11-26T18:00:00Z,100000\n');
  const agent = await createStubAgent();
  const upstream = await createStubUpstream();
  const key = 'sk-acme';
  const gateway = await startConfigured(
    testConfig(
      `agent: { socket: ${agent.socketPath} }\nreplicas: [{ id: r0, url: '${upstream.url}', models: [m], profile: ${PROFILE}, devices: ['sim:0'] }]\nplanner: { policy: max-clock }\npower: { budgets: [{ name: all, schedule: { file: ${join(directory, 'watts.csv')} } }] }\n` +
        `slo: { classes: { cheap: {} } }\ntenants: [{ name: acme, apiKeySha256: ['${createHash('sha256').update(key).digest('hex')}'], limits: { concurrencyMax: 2 }, energyBudget: { joulesPerDay: 1000, atEnd: { class: cheap } } }]\ntimeouts: { drainMs: 0 }\n`,
    ),
  );
  try {
    const ask = async (body: object, headers: Record<string, string> = {}): Promise<void> => void (await (await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json', ...headers }, body: JSON.stringify({ model: 'm', messages: [], ...body }) })).text());
    await ask({ stream: true }, { 'x-slo-ttft-ms': '5000', 'x-slo-tpot-ms': '1000' });
    await ask({}, { 'x-slo-e2e-ms': '10000' });
    await ask({}, { 'x-slo-e2e-ms': 'soon' });
    upstream.answer = (_request, incoming) => void incoming.socket.destroy();
    await ask({});
    await eventually(() => gateway.events.filter(({ kind }) => kind === 'ended').length >= 3);
    return await (await fetch(`${gateway.adminUrl}/metrics`)).text();
  } finally {
    await gateway.close();
    await upstream.close();
    await agent.close();
  }
}

/** Names of metrics in an expression; those that are labels, functions or words of the language are not. */
function metricsIn(expression: string): string[] {
  const bare = expression.replaceAll(/\{[^}]*\}/g, '').replaceAll(/\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)/g, '').replaceAll(/"[^"]*"/g, '');
  return [...bare.matchAll(/[a-zA-Z_:][\w:]*/g)].map(([name]) => name).filter((name) => name.includes('_') && !/^(histogram_quantile|label_values|group_left|group_right)$/.test(name));
}

/** With their selectors' labels. */
function selectorsIn(expression: string): { readonly name: string; readonly labels: readonly string[] }[] {
  return [...expression.matchAll(/([a-zA-Z_:][\w:]*)\{([^}]*)\}/g)].map(([, name = '', inside = '']) => ({ name, labels: [...inside.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)].map(([, label = '']) => label) }));
}

function declared(): Set<string> {
  const names = [...page.matchAll(/^# TYPE (\S+) (\S+)$/gm)].flatMap(([, name = '', type = '']) => (type === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name]));
  return new Set([...names, ...recorded, 'up']);
}

const everything = [...rules.map((rule) => ({ title: rule.alert ?? rule.record ?? '', expr: rule.expr })), ...panelExpressions];

describe('the rules', () => {
  test.each(RULES)('%s are rules to Prometheus', (path) => {
    expect(promtool(['check', 'rules', path])).toMatchObject({ status: 0 });
  });

  test('fire when they should, and not else', () => {
    const { status, said } = promtool(['test', 'rules', ALERT_TESTS]);
    expect(said).toContain('SUCCESS');
    expect(status).toBe(0);
  });

  test('every alert is tested, says what is wrong, and how urgent it is', () => {
    const tested = readFileSync(ALERT_TESTS, 'utf8');
    expect(alerts.length).toBeGreaterThan(15);
    expect(alerts.filter(({ alert }) => !new RegExp(`alertname: ${alert}\\n\\s+eval_time: \\S+\\n\\s+exp_alerts:\\n`).test(tested)).map(({ alert }) => alert)).toEqual([]);
    expect(alerts.filter(({ labels, annotations }) => !['page', 'ticket', 'info'].includes(labels?.severity ?? '') || (annotations?.summary ?? '') === '').map(({ alert }) => alert)).toEqual([]);
  });
});

describe('the dashboard', () => {
  test('asks what Prometheus can read', () => {
    const file = join(directory, 'dashboard.yaml');
    const ruled = panelExpressions.map(({ expr }, index) => ({ record: `panel:${index}`, expr: expr.replaceAll('$instance', '.*') }));
    writeFileSync(file, JSON.stringify({ groups: [{ name: 'dashboard', rules: ruled }] }));
    expect(promtool(['check', 'rules', file])).toMatchObject({ status: 0 });
  });

  test('has panels that do not overlap, each with a title and an id of its own', () => {
    const cells = dashboard.panels.flatMap(({ gridPos: { x, y, w, h } }) => Array.from({ length: w * h }, (_, cell) => `${x + (cell % w)}:${y + Math.floor(cell / w)}`));
    expect(new Set(cells).size).toBe(cells.length);
    expect(dashboard.panels.every(({ gridPos: { x, w } }) => x + w <= 24)).toBe(true);
    expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length);
    expect(dashboard.panels.filter(({ title }) => title === '')).toEqual([]);
  });

  test('knows the variables that it uses', () => {
    const used = [...new Set([...readFileSync('deploy/grafana/paceline.json', 'utf8').matchAll(/\$\{?(\w+)/g)].map(([, name]) => name))].filter((name) => name !== '__all');
    expect(used.sort()).toEqual(dashboard.templating.list.map(({ name }) => name).sort());
  });
});

test('every metric that a rule or a panel asks for is told by a gateway, or recorded by a rule', () => {
  const there = declared();
  const missing = everything.flatMap(({ title, expr }) => metricsIn(expr).filter((name) => !there.has(name)).map((name) => `${title}: ${name}`));
  expect(everything.flatMap(({ expr }) => metricsIn(expr)).length).toBeGreaterThan(80);
  expect(missing).toEqual([]);
});

test('every label that a rule or a panel selects by is one that its metric has', () => {
  const labelsOf = (name: string): Set<string> => new Set([...page.matchAll(new RegExp(`^${name}\\{([^}]*)\\}`, 'gm'))].flatMap(([, inside = '']) => [...inside.matchAll(/(\w+)="/g)].map(([, label = '']) => label)));
  const wrong = everything.flatMap(({ title, expr }) =>
    selectorsIn(expr).flatMap(({ name, labels }) => {
      const there = labelsOf(name);
      // Without a series on the page nothing can be said of it.
      return there.size === 0 ? [] : labels.filter((label) => !there.has(label) && label !== 'instance').map((label) => `${title}: ${name}{${label}}`);
    }),
  );
  expect(wrong).toEqual([]);
});

test("Prometheus' linter has nothing to say of the page", () => {
  expect(promtool(['check', 'metrics'], page)).toEqual({ status: 0, said: '' });
});

test('the page after traffic has series of what this is about', () => {
  for (const series of [
    'gen_ai_server_request_duration_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="paceline",gen_ai_request_model="m",error_type=""} 2',
    'gen_ai_server_request_duration_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="paceline",gen_ai_request_model="m",error_type="failed"} 1',
    'gen_ai_client_token_usage_count{gen_ai_operation_name="chat",gen_ai_provider_name="paceline",gen_ai_request_model="m",gen_ai_token_type="output"} 2',
    'paceline_tenant_energy_budget_joules{tenant="acme"} 1000',
    'paceline_energy_output_tokens_total{tenant="acme",model="m",slo_class="custom"} 6',
  ]) expect(page.split('\n')).toContain(series);
});
