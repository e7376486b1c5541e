// What is wrong with a configuration file, said so that it can be mended: the line, the key, what was given and
// what is allowed.
import type { Document, LineCounter, Node, Pair } from 'yaml';
import { isMap, isNode, isPair, isScalar } from 'yaml';
import type { z } from 'zod';

export class ConfigError extends Error {
  override name = 'ConfigError';
  readonly problems: readonly string[];
  constructor(problems: readonly string[]) {
    super(problems.join('\n'));
    this.problems = problems;
  }
}

export type Path = readonly PropertyKey[];

/** Gives a problem its place in the file: `paceline.yaml:12: replicas[0].models: …`. */
export interface Places {
  at(path: Path, problem: string): string;
  /** As `at`, but the place is the key itself, which exists. */
  atKey(path: Path, problem: string): string;
}

export function createPlaces(fileName: string, document: Document, lines: LineCounter): Places {
  /** Line of the deepest part of the path that is in the file. */
  function lineOf(path: Path): number {
    for (let length = path.length; length >= 0; length--) {
      const node = length === 0 ? document.contents : document.getIn(path.slice(0, length), true);
      if (isNode(node) && node.range) return lines.linePos(node.range[0]).line;
    }
    return 1;
  }
  function keyLineOf(path: Path): number {
    const parent = path.length === 1 ? document.contents : document.getIn(path.slice(0, -1), true);
    const pair: Pair | undefined = isMap(parent) ? parent.items.find((item) => isPair(item) && isScalar(item.key) && String(item.key.value) === String(path.at(-1))) : undefined;
    const key = pair?.key as Node | undefined;
    return key?.range ? lines.linePos(key.range[0]).line : lineOf(path);
  }
  return {
    at: (path, problem) => `${fileName}:${lineOf(path)}: ${dotted(path)}: ${problem}`,
    atKey: (path, problem) => `${fileName}:${keyLineOf(path)}: ${dotted(path)}: ${problem}`,
  };
}

export function dotted(path: Path): string {
  if (path.length === 0) return '(the whole file)';
  return path.map((part, index) => (typeof part === 'number' ? `[${part}]` : index === 0 ? String(part) : `.${String(part)}`)).join('');
}

/** One line per problem. `knownKeys` answers which keys there are at a path. */
export function issueLines(issue: z.core.$ZodIssue, places: Places, knownKeys: (path: Path) => readonly string[]): string[] {
  const { path } = issue;
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => places.atKey([...path, key], `unknown key; known: ${knownKeys(path).join(', ')}`));
    case 'invalid_key':
      return [places.atKey(path, `this name cannot be used; ${issue.issues[0]?.message ?? issue.message}`)];
    case 'invalid_union': {
      // The branch that the value was meant for is the one that got deepest into it.
      const deepest = issue.errors.flat().filter((inner) => inner.path.length > 0);
      if (deepest.length > 0) return deepest.flatMap((inner) => issueLines({ ...inner, path: [...path, ...inner.path] }, places, knownKeys));
      return [places.at(path, `${given(issue.input, path)}, ${issue.message}`)];
    }
    case 'invalid_type':
      if (issue.input === undefined) return [places.at(path, `missing; want ${nameOfType(issue.expected)}`)];
      return [places.at(path, `${given(issue.input, path)}, want ${nameOfType(issue.expected)}`)];
    case 'too_small':
      return [places.at(path, `${given(issue.input)}, want ${issue.inclusive === false ? 'more than' : 'at least'} ${issue.minimum}${things(issue.origin)}`)];
    case 'too_big':
      return [places.at(path, `${given(issue.input)}, want ${issue.inclusive === false ? 'less than' : 'at most'} ${issue.maximum}${things(issue.origin)}`)];
    case 'invalid_value':
      return [places.at(path, `${given(issue.input)}, allowed: ${issue.values.map(String).join(', ')}`)];
    default:
      return [places.at(path, `${given(issue.input, path)}, ${issue.message}`)];
  }
}

/** Keys whose values are secrets, or where one is put by mistake: the key itself where its hash is wanted. */
const SECRET_KEY = /sha256$|^redisUrl$/i;

/** What may be a secret is not said again: what is printed here ends in logs. */
function given(input: unknown, path: Path = []): string {
  const isSecret = path.some((part) => SECRET_KEY.test(String(part))) && typeof input === 'string' && !/^[0-9a-f]*$/i.test(input);
  if (isSecret) return `got ${input.length} characters that are not shown`;
  const text = (JSON.stringify(input) ?? 'nothing').replaceAll(/\/\/[^/@\s"]*@/g, '//***@');
  return `got ${text.length > 80 ? `${text.slice(0, 77)}…` : text}`;
}

function nameOfType(expected: string): string {
  if (expected === 'object' || expected === 'record') return 'a map';
  if (expected === 'array') return 'a list';
  if (expected === 'int') return 'a whole number';
  return `a ${expected}`;
}

function things(origin: string): string {
  if (origin === 'string') return ' characters';
  if (origin === 'array') return ' entries';
  return '';
}
