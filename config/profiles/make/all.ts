// Writes every shipped profile, and the JSON Schema of them, from their makers: `npm run profiles:make`.
import { writeFileSync } from 'node:fs';
import { parseProfile, profileJsonSchema } from '../../../src/profile-file.ts';
import { H100_DEGREES, llama70bOnH100 } from './llama-3.1-70b.h100.ts';
import { llama8bOnH200 } from './llama-3.1-8b.h200.ts';
import { mistral7bOnV100 } from './mistral-7b.v100.ts';
import type { MadeProfile } from './write-profile.ts';
import { profileText } from './write-profile.ts';

/** Every file that `profiles:make` writes, by its place below `config/`. */
export function madeFiles(): ReadonlyMap<string, string> {
  const made: readonly MadeProfile[] = [...H100_DEGREES.map(llama70bOnH100), llama8bOnH200(), mistral7bOnV100()];
  return new Map([
    ...made.map(({ file, profile }) => [`profiles/${file}`, profileText(parseProfile(profile, file))] as const),
    ['schemas/profile.schema.json', `${JSON.stringify(profileJsonSchema(), null, 2)}\n`],
  ]);
}

if (import.meta.main) {
  for (const [file, text] of madeFiles()) {
    writeFileSync(new URL(`../../${file}`, import.meta.url), text);
    process.stdout.write(`config/${file}: ${Buffer.byteLength(text)} bytes\n`);
  }
}
