import { expect, test } from 'vitest';
import { ARMS_MAX, checkArms, parseArm } from '../../src/compare/arm-target.ts';

test.each([
  { text: 'http://h:8000', name: 'h:8000', target: { kind: 'endpoint', url: 'http://h:8000' } },
  { text: 'plain=https://h/v1', name: 'plain', target: { kind: 'endpoint', url: 'https://h/v1' } },
  { text: 'dir/paceline.yaml', name: 'paceline', target: { kind: 'config', file: 'dir/paceline.yaml', policy: null } },
  { text: 'a b=c.yml#max-clock', name: 'a b', target: { kind: 'config', file: 'c.yml', policy: 'max-clock' } },
  { text: 'c.yaml#static:1200', name: 'static-1200', target: { kind: 'config', file: 'c.yaml', policy: 'static:1200' } },
])('$text is an arm', ({ text, ...arm }) => {
  expect(parseArm(text)).toEqual(arm);
});

test.each(['max-clock.json', 'a=b.json', 'runs/x'])('%s is none, but may be a result', (text) => {
  expect(parseArm(text)).toBeNull();
});

test.each([
  { text: 'c.yaml#fast', message: "got the policy 'fast', want paceline, max-clock or static:POINT behind the #" },
  { text: '<b>=http://h', message: "got the name '<b>', want 1 to 40 letters" },
])('$text is refused', ({ text, message }) => {
  expect(() => parseArm(text)).toThrow(message);
});

test('arms are two or more, at most so many, with names of their own', () => {
  const arms = (...texts: string[]) => texts.map((text) => parseArm(text) as NonNullable<ReturnType<typeof parseArm>>);
  expect(() => checkArms(arms('http://h:1'))).toThrow('got one arm, want two or more');
  expect(() => checkArms(arms('http://h:1', 'http://h:1'))).toThrow("two arms are called 'h:1'; give them names: --compare NAME=http://h:1");
  expect(() => checkArms(arms('a=http://h:1', 'b=http://h:1'))).not.toThrow();
  const many = Array.from({ length: ARMS_MAX + 1 }, (_, index) => `http://h:${index + 1}`);
  expect(() => checkArms(arms(...many.slice(1)))).not.toThrow();
  expect(() => checkArms(arms(...many))).toThrow(`got ${ARMS_MAX + 1} arms, want at most ${ARMS_MAX}`);
});
