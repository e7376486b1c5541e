// Files that the frontier commands read and write: profiles in, plots, pages and JSON out.
import { readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import type { ViewedProfile } from '../frontier-view/figures.ts';
import { createPerformanceModel } from '../frontier/performance-model.ts';
import { loadProfile, parseProfile, PROFILE_BYTES_MAX, ProfileFileError } from '../profile-file.ts';
import { UsageError } from './command.ts';

export interface Outputs {
  readonly json: boolean;
  readonly svg: string | undefined;
  readonly html: string | undefined;
}

/** `text`: of the file, where it was read already. */
export function profileOf(file: string, text?: string): ViewedProfile {
  try {
    return { name: basename(file).replace(/\.json$/, ''), model: createPerformanceModel(text === undefined ? loadProfile(file) : parseProfile(text, file)) };
  } catch (error) {
    if (error instanceof ProfileFileError) throw new UsageError(error.message);
    throw error;
  }
}

export function read(file: string): string {
  try {
    const bytes = readFileSync(file);
    if (bytes.length > PROFILE_BYTES_MAX) throw new UsageError(`${file}: got ${bytes.length} bytes, at most ${PROFILE_BYTES_MAX}`);
    return bytes.toString('utf8');
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`${file}: cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
}

export function write({ svg, html }: Outputs, make: { readonly svg: () => string; readonly html: () => string }): void {
  if (svg !== undefined) writeText(svg, `${make.svg()}\n`, 'svg');
  if (html !== undefined) writeText(html, make.html(), 'html');
}

export function writeText(path: string, text: string, option: string): void {
  try {
    writeFileSync(path, text);
  } catch (error) {
    throw new UsageError(`--${option} ${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

export function print(value: object): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

export function digits(value: number): string {
  return value >= 1000 ? value.toFixed(0) : value.toPrecision(4);
}
