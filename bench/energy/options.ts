// What the energy benches are asked for: a wrong word or number is one line with the way out.

class OptionError extends Error {
  override name = 'OptionError';
}

/** Names separated by commas, each of them known. */
export function chosen<Name extends string>(option: string, text: string, all: readonly Name[]): readonly Name[] {
  return text.split(',').map((name) => {
    const found = all.find((known) => known === name.trim());
    if (found === undefined) throw new OptionError(`--${option}: got '${name}', allowed: ${all.join(', ')}`);
    return found;
  });
}

export function numberOf(option: string, text: string, { least, most, whole = false }: { readonly least: number; readonly most: number; readonly whole?: boolean }): number {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (!(value >= least && value <= most) || (whole && !Number.isInteger(value))) throw new OptionError(`--${option}: got '${text}', want a ${whole ? 'whole ' : ''}number from ${least} to ${most}`);
  return value;
}

/** Runs it; what was asked wrongly ends with exit code 2 instead of a stack. */
export async function refusing(run: () => Promise<void>): Promise<void> {
  try {
    await run();
  } catch (error) {
    const unknownOption = error instanceof TypeError && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS');
    if (!(error instanceof OptionError) && !unknownOption) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 2;
  }
}
