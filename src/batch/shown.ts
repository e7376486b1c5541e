// A value as a message shows it to whoever sent it.

const CHARACTERS_MAX = 60;

export function shown(value: unknown): string {
  const text = value === undefined ? 'nothing' : typeof value === 'string' ? `'${value}'` : (jsonText(value) ?? 'something nested too deeply');
  return text.length > CHARACTERS_MAX ? `${text.slice(0, CHARACTERS_MAX - 1)}…` : text;
}

/** `null` where it cannot be written out again: `JSON.parse` takes any depth, `JSON.stringify` recurses, and a few kilobytes of `[[[…` overflow its stack. */
export function jsonText(value: unknown): string | null {
  try {
    return JSON.stringify(value);
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}
