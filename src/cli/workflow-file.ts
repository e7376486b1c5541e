// A workflow's declaration in a file, as the command line reads it: YAML or JSON, with the sizes of all calls.
import { LineCounter, parseDocument } from 'yaml';
import { type DeclaredNode, type DeclaredWorkflow, readWorkflow, TOKENS_MAX } from '../workflow-document.ts';
import { UsageError } from './command.ts';
import { read } from './frontier-files.ts';

export type SizedNode = Extract<DeclaredNode, { kind: 'tool' }> | (Extract<DeclaredNode, { kind: 'call' }> & { readonly promptTokens: number; readonly outputTokens: number });

export function loadWorkflow(file: string): DeclaredWorkflow {
  const lines = new LineCounter();
  // JSON is YAML. No aliases: a few of them can stand for a gigabyte.
  const document = parseDocument(read(file), { lineCounter: lines, prettyErrors: true, uniqueKeys: true, logLevel: 'error' });
  const [error] = document.errors;
  // The parser goes as deep as its stack; a workflow is four levels deep.
  if (error?.message.startsWith('Maximum call stack') === true) throw new UsageError(`${file}: is nested too deeply to be a workflow`);
  if (error !== undefined) throw new UsageError(`${file}: is neither YAML nor JSON: ${error.message.split('\n')[0]}`);
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 0 });
  } catch (cause) {
    throw new UsageError(`${file}: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
  const reading = readWorkflow(value);
  if (reading.kind === 'refused') throw new UsageError(reading.problems.map((problem) => `${file}: ${problem}`).join('\n'));
  return reading.workflow;
}

/** `like`: `PROMPT:OUTPUT` of the calls that say none. Throws `UsageError` where one has no size. */
export function sizedNodes(nodes: readonly DeclaredNode[], like: string | undefined): readonly SizedNode[] {
  const sizes = like === undefined ? null : sizesOf(like);
  return nodes.map((node, place) => {
    if (node.kind === 'tool') return node;
    const [promptTokens, outputTokens] = [node.promptTokens ?? sizes?.promptTokens, node.outputTokens ?? sizes?.outputTokens];
    if (promptTokens === undefined || outputTokens === undefined) throw new UsageError(`nodes[${place}] ${node.stage}: says no ${promptTokens === undefined ? 'promptTokens' : 'outputTokens'}; give them, or --like PROMPT:OUTPUT for all calls that say none`);
    return { ...node, promptTokens, outputTokens };
  });
}

function sizesOf(like: string): { readonly promptTokens: number; readonly outputTokens: number } {
  const [, promptTokens, outputTokens] = /^(\d{1,8}):(\d{1,8})$/.exec(like) ?? [];
  if (promptTokens === undefined) throw new UsageError(`--like: got '${like}', want PROMPT:OUTPUT in tokens, such as 1200:300`);
  if (Math.max(Number(promptTokens), Number(outputTokens)) > TOKENS_MAX) throw new UsageError(`--like: got '${like}', want at most ${TOKENS_MAX} tokens of either, as in a file`);
  return { promptTokens: Number(promptTokens), outputTokens: Number(outputTokens) };
}
