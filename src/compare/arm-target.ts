// What `--compare` names: an endpoint that is up, or a configuration for which a gateway is started for each of its turns. Pure.

export type ArmTarget =
  | { readonly kind: 'endpoint'; readonly url: string }
  /** `policy`: in the place of the configured one; `null`: as configured. */
  | { readonly kind: 'config'; readonly file: string; readonly policy: string | null };

export interface Arm {
  /** In tables and plots; no two of a comparison have the same. */
  readonly name: string;
  readonly target: ArmTarget;
}

export class ArmError extends Error {
  override name = 'ArmError';
}

/** Each has a colour, and a turn in every round. */
export const ARMS_MAX = 6;

/** `[NAME=]http://HOST:PORT` or `[NAME=]FILE.yaml[#POLICY]`; `null` for what is neither, such as the file of an earlier result. Throws `ArmError`. */
export function parseArm(text: string): Arm | null {
  const [, name, rest = text] = /^([^=:/#]+)=(.*)$/s.exec(text) ?? [];
  const target = targetOf(rest);
  if (target === null) return null;
  if (name !== undefined && !/^[\w .+()-]{1,40}$/.test(name)) throw new ArmError(`--compare: got the name '${name}', want 1 to 40 letters, digits, spaces or . _ + - ( )`);
  return { name: name ?? nameOf(target), target };
}

/** Throws `ArmError` where they cannot be told apart or are too few or many. */
export function checkArms(arms: readonly Arm[]): void {
  if (arms.length < 2) throw new ArmError(`--compare: got one arm, want two or more: the first is what the others are compared to`);
  if (arms.length > ARMS_MAX) throw new ArmError(`--compare: got ${arms.length} arms, want at most ${ARMS_MAX}`);
  const twice = arms.find(({ name }, index) => arms.findIndex((other) => other.name === name) !== index);
  if (twice !== undefined) throw new ArmError(`--compare: two arms are called '${twice.name}'; give them names: --compare NAME=${targetText(twice.target)}`);
}

export function targetText(target: ArmTarget): string {
  return target.kind === 'endpoint' ? target.url : `${target.file}${target.policy === null ? '' : `#${target.policy}`}`;
}

function targetOf(text: string): ArmTarget | null {
  if (/^https?:\/\//.test(text)) return { kind: 'endpoint', url: text };
  const [, file, policy] = /^(.+\.ya?ml)(?:#(.*))?$/s.exec(text) ?? [];
  if (file === undefined) return null;
  return { kind: 'config', file, policy: policy === undefined ? null : knownPolicy(policy) };
}

/** As `paceline serve --policy` takes it, said before anything is started. */
function knownPolicy(policy: string): string {
  if (!/^(paceline|max-clock|static:.+)$/.test(policy)) throw new ArmError(`--compare: got the policy '${policy}', want paceline, max-clock or static:POINT behind the #`);
  return policy;
}

function nameOf(target: ArmTarget): string {
  if (target.kind === 'endpoint') return URL.parse(target.url)?.host ?? target.url;
  return (target.policy ?? target.file.replace(/^.*\//, '').replace(/\.ya?ml$/, '')).replaceAll(/[^\w .+()-]/g, '-').slice(0, 40);
}
