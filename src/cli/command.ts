// What a command is, and its options: declared once, so that parsing, checking and `--help` cannot disagree.
import { parseArgs } from 'node:util';

/** Wrong use of the command line: printed as one line with the way out, exit code 2. */
export class UsageError extends Error {
  override name = 'UsageError';
}

type OptionSpec =
  | { readonly type: 'text'; readonly default?: string; readonly value: string; readonly help: string; readonly oneOf?: readonly string[] }
  | { readonly type: 'texts'; readonly value: string; readonly help: string }
  | { readonly type: 'number'; readonly default?: number; readonly value: string; readonly help: string; readonly min?: number; readonly max?: number; readonly integer?: boolean }
  | { readonly type: 'flag'; readonly help: string };

type OptionValue<S extends OptionSpec> = S extends { type: 'text' }
  ? S extends { default: string } ? string : string | undefined
  : S extends { type: 'texts' } ? readonly string[]
  : S extends { type: 'number' } ? S extends { default: number } ? number : number | undefined
  : boolean;

export type OptionSpecs = Readonly<Record<string, OptionSpec>>;
export type OptionValues<S extends OptionSpecs> = { readonly [Name in keyof S]: OptionValue<S[Name]> };

export interface Command {
  readonly name: string;
  readonly summary: string;
  /** What `paceline NAME --help` prints. */
  readonly usage: string;
  /** Resolves with the exit code. Throws `UsageError` for wrong use. */
  readonly run: (argv: readonly string[]) => Promise<number>;
}

/** A command from its declared options; `positionals` names what may follow them (for the usage line and the count); a last one with `…` may come any number of times. */
export function defineCommand<const S extends OptionSpecs>(definition: {
  readonly name: string;
  readonly summary: string;
  readonly options: S;
  readonly positionals?: readonly string[];
  readonly examples?: readonly string[];
  /** `given`: names of the options that stand on the command line, for what takes them only together with others. */
  readonly run: (options: OptionValues<S>, positionals: readonly string[], given: ReadonlySet<string>) => Promise<number>;
}): Command {
  const { name, options, positionals = [] } = definition;
  return {
    name,
    summary: definition.summary,
    usage: usageOf(definition),
    run: (argv) => {
      const parsed = parse(name, options, positionals, argv);
      return definition.run(parsed.options, parsed.positionals, parsed.given);
    },
  };
}

function parse<S extends OptionSpecs>(name: string, specs: S, positionalNames: readonly string[], argv: readonly string[]): { options: OptionValues<S>; positionals: readonly string[]; given: ReadonlySet<string> } {
  const wayOut = `see: paceline ${name} --help`;
  let raw: { values: Record<string, unknown>; positionals: string[] };
  try {
    raw = parseArgs({
      args: [...argv],
      strict: true,
      allowPositionals: positionalNames.length > 0,
      options: Object.fromEntries(
        Object.entries(specs).map(([key, spec]) => [key, spec.type === 'flag' ? { type: 'boolean' as const } : { type: 'string' as const, multiple: spec.type === 'texts' }]),
      ),
    }) as typeof raw;
  } catch (error) {
    throw new UsageError(`${error instanceof Error ? error.message : String(error)}; ${wayOut}`);
  }
  const many = positionalNames.at(-1)?.endsWith('…') === true;
  if (!many && raw.positionals.length > positionalNames.length) throw new UsageError(`unexpected argument '${raw.positionals[positionalNames.length]}'; ${wayOut}`);
  const values: Record<string, unknown> = {};
  for (const [key, spec] of Object.entries(specs)) {
    const given = raw.values[key];
    if (spec.type === 'flag') values[key] = given === true;
    else if (spec.type === 'texts') values[key] = given ?? [];
    else if (spec.type === 'number') values[key] = given === undefined ? spec.default : checkedNumber(key, String(given), spec);
    else {
      if (given !== undefined && spec.oneOf !== undefined && !spec.oneOf.includes(String(given))) throw new UsageError(`--${key}: got '${String(given)}', allowed: ${spec.oneOf.join(', ')}`);
      values[key] = given ?? spec.default;
    }
  }
  return { options: values as OptionValues<S>, positionals: raw.positionals, given: new Set(Object.keys(raw.values)) };
}

function checkedNumber(key: string, text: string, spec: { readonly min?: number; readonly max?: number; readonly integer?: boolean }): number {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY, integer = false } = spec;
  if (!Number.isFinite(value) || value < min || value > max || (integer && !Number.isInteger(value))) {
    const range = [Number.isFinite(min) ? `at least ${min}` : '', Number.isFinite(max) ? `at most ${max}` : ''].filter((part) => part !== '').join(', ');
    throw new UsageError(`--${key}: got '${text}', want a ${integer ? 'whole number' : 'number'}${range === '' ? '' : `, ${range}`}`);
  }
  return value;
}

function usageOf(definition: { name: string; summary: string; options: OptionSpecs; positionals?: readonly string[]; examples?: readonly string[] }): string {
  const { name, summary, options, positionals = [], examples = [] } = definition;
  const rows = Object.entries(options).map(([key, spec]) => {
    const left = spec.type === 'flag' ? `--${key}` : `--${key} ${spec.value}`;
    const notes = [
      spec.type === 'text' && spec.oneOf !== undefined ? `one of ${spec.oneOf.join(', ')}` : '',
      'default' in spec && spec.default !== undefined ? `default ${spec.default}` : '',
      spec.type === 'texts' ? 'may be repeated' : '',
    ].filter((note) => note !== '');
    return [left, notes.length === 0 ? spec.help : `${spec.help} (${notes.join('; ')})`] as const;
  });
  const width = Math.max(0, ...rows.map(([left]) => left.length));
  return [
    `paceline ${[name, ...positionals].join(' ')}${rows.length === 0 ? '' : ' [options]'}`,
    '',
    summary,
    '',
    ...rows.map(([left, help]) => `  ${left.padEnd(width)}  ${help}`),
    ...(examples.length === 0 ? [] : ['', 'Examples:', ...examples.map((example) => `  ${example}`)]),
  ].join('\n');
}
