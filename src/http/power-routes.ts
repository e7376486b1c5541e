// Power budgets on the operators' listener: what they stand at, and another value for a while (demand response).
import { z } from 'zod';
import type { App } from './app.ts';
import { readBody } from './request-body.ts';

/** `warning`: what was asked was done, and is hardly what was meant. */
export type BudgetAnswer = { readonly kind: 'stands'; readonly budget: object; readonly warning: string | null } | { readonly kind: 'unknown'; readonly names: readonly string[] } | { readonly kind: 'below-idle'; readonly idleW: number };

export interface PowerRoutes {
  /** Plain data. */
  readonly snapshot: () => object;
  readonly budget: (name: string) => BudgetAnswer;
  readonly override: (name: string, asked: { readonly watts: number; readonly forMs: number }) => BudgetAnswer;
  readonly endOverride: (name: string) => BudgetAnswer;
}

const BODY_BYTES_MAX = 4_096;
/** Who forgets one has it for a week at most. */
const FOR_MS = { default: 3_600_000, max: 604_800_000 };

const overrideSchema = z.strictObject({
  watts: z.number().positive().max(1e9),
  forMs: z.int().min(1_000).max(FOR_MS.max).default(FOR_MS.default),
});

/** What may be asked of a path of theirs; `null`: it is none. */
export function powerMethods(path: string): string | null {
  if (path === '/paceline/power') return 'GET, HEAD, OPTIONS';
  return /^\/paceline\/power\/budgets\/[^/]+$/.test(path) ? 'GET, HEAD, PUT, DELETE, OPTIONS' : null;
}

export function addPowerRoutes(app: App, power: PowerRoutes): void {
  app.get('/paceline/power', (context) => context.json(power.snapshot()));
  app.get('/paceline/power/budgets/:name', (context) => answer(context, power.budget(context.req.param('name')), null));
  app.put('/paceline/power/budgets/:name', async (context) => {
    const { incoming, outgoing } = context.env;
    const reading = await new Promise<Parameters<Parameters<typeof readBody>[3]>[0]>((resolve) => {
      readBody(incoming, BODY_BYTES_MAX, () => outgoing.writeContinue(), resolve);
    });
    if (reading.kind !== 'ok') return context.json({ error: reading.kind === 'encoded' ? `the body came as ${reading.encoding}, want it plain` : `the body has more than ${BODY_BYTES_MAX} bytes` }, 400);
    const asked = overrideOf(reading.body.toString('utf8'));
    if (typeof asked === 'string') return context.json({ error: asked }, 400);
    return answer(context, power.override(context.req.param('name'), asked), asked.watts);
  });
  app.delete('/paceline/power/budgets/:name', (context) => answer(context, power.endOverride(context.req.param('name')), null));

  function answer(context: { readonly req: { param(name: 'name'): string }; json(body: object, status?: 400 | 404): Response }, told: BudgetAnswer, watts: number | null): Response {
    if (told.kind === 'stands') return context.json(told.warning === null ? told.budget : { ...told.budget, warning: told.warning });
    if (told.kind === 'unknown') return context.json({ error: `no power budget '${context.req.param('name')}'; there are: ${told.names.join(', ') || 'none'}` }, 404);
    return context.json({ error: `watts: got ${watts ?? 0}, and what is under this budget draws ${Number(told.idleW.toFixed(1))} with nothing to do, at its slowest; want more` }, 400);
  }
}

/** What is wrong with it, with the place. */
function overrideOf(text: string): { readonly watts: number; readonly forMs: number } | string {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (error) {
    return `the body is no JSON (${error instanceof Error ? error.message : String(error)}); want {"watts": 4200, "forMs": 3600000}`;
  }
  const parsed = overrideSchema.safeParse(content, { reportInput: true });
  if (parsed.success) return parsed.data;
  return parsed.error.issues.map((issue) => wrong(issue)).join('; ');
}

function wrong(issue: z.core.$ZodIssue): string {
  if (issue.code === 'unrecognized_keys') return `unknown key ${issue.keys.map((key) => `'${key.slice(0, 60)}'`).join(', ')}; known: watts, forMs`;
  const key = String(issue.path[0] ?? 'the body');
  const given = JSON.stringify(issue.input)?.slice(0, 60) ?? 'nothing';
  if (key === 'watts') return `watts: got ${given}, want a number above 0, at most 1e9`;
  if (key === 'forMs') return `forMs: got ${given}, want a whole number of milliseconds, 1000 to ${FOR_MS.max}`;
  return `the body: got ${given}, want {"watts": 4200, "forMs": 3600000}`;
}
