// The shell commands of a document, as a reader would copy them: what stands in its fences of `sh` or `bash`.

export interface DocumentedCommand {
  /** Where it begins, from 1. */
  readonly line: number;
  /** Lines that end in a backslash are joined; comments are left out. */
  readonly text: string;
}

export function commandsOf(markdown: string): DocumentedCommand[] {
  const commands: DocumentedCommand[] = [];
  let inFence: 'shell' | 'other' | null = null;
  let open = null as { line: number; text: string } | null;
  for (const [index, raw] of markdown.split('\n').entries()) {
    const fence = /^\s*```(\w*)/.exec(raw);
    if (fence !== null) {
      inFence = inFence !== null ? null : ['sh', 'bash', 'shell'].includes(fence[1] ?? '') ? 'shell' : 'other';
      continue;
    }
    if (inFence !== 'shell') continue;
    const line = withoutComment(raw).trim();
    if (line === '') continue;
    open = { line: open?.line ?? index + 1, text: `${open === null ? '' : `${open.text} `}${line.replace(/\\$/, '').trim()}` };
    if (line.endsWith('\\')) continue;
    commands.push(open);
    open = null;
  }
  return commands;
}

/** A `#` that begins a word outside of quotes. */
function withoutComment(line: string): string {
  let quote: string | null = null;
  for (const [at, character] of [...line].entries()) {
    if (quote !== null) quote = character === quote ? null : quote;
    else if (character === "'" || character === '"') quote = character;
    else if (character === '#' && (at === 0 || /\s/.test(line[at - 1] ?? ''))) return line.slice(0, at);
  }
  return line;
}

/** The words of a command, quotes taken off; good for looking at options, not for running. */
export function wordsOf(command: string): string[] {
  return [...command.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map(([, single, double, plain]) => single ?? double ?? plain ?? '');
}
