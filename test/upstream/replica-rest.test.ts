import { describe, expect, test } from 'vitest';
import { createReplicaRest, type ReplicaRest } from '../../src/upstream/replica-rest.ts';
import { eventually } from '../fixtures/gateway-under-test.ts';

type Answer = { readonly statusCode: number; readonly body: Buffer };

/** A server whose calls are answered when the test says so. */
function serverOf(answers: Readonly<Record<string, number | string | 'held'>>) {
  const calls: string[] = [];
  const held: ((answer: Answer) => void)[] = [];
  const states: string[] = [];
  const ask = (method: string) => (path: string): Promise<Answer> => {
    const route = `${method} ${path.split('?')[0]}`;
    calls.push(route);
    const answer = answers[route] ?? 200;
    if (answer === 'held') return new Promise((resolve) => held.push(resolve));
    if (answer === 'broken') return Promise.reject(new Error('socket hang up'));
    return Promise.resolve(typeof answer === 'number' ? { statusCode: answer, body: Buffer.from('') } : { statusCode: 200, body: Buffer.from(answer) });
  };
  const rest: ReplicaRest = createReplicaRest({ client: { get: ask('GET'), post: ask('POST') }, sleepMs: 10, wakeMs: 10, timeoutMs: 100, onState: (state) => states.push(state) });
  const release = (): void => held.splice(0).forEach((resolve) => resolve({ statusCode: 200, body: Buffer.from('') }));
  return { rest, calls, states, release, held };
}

const settled = (states: readonly string[], count: number): Promise<void> => eventually(() => states.length >= count);

describe('a model server', () => {
  test('is put to sleep and woken, and told of each', async () => {
    const { rest, calls, states } = serverOf({});
    rest.goTo('asleep');
    await settled(states, 1);
    rest.goTo('awake');
    await settled(states, 2);
    expect(states).toEqual(['asleep', 'awake']);
    expect(calls).toEqual(['POST /sleep', 'POST /wake_up']);
  });

  test('has one call under way, and the latest wish wins over those that have not begun', async () => {
    const { rest, calls, states, release, held } = serverOf({ 'POST /sleep': 'held' });
    rest.goTo('asleep');
    await eventually(() => held.length === 1);
    for (const to of ['awake', 'asleep', 'awake'] as const) rest.goTo(to);
    expect(calls).toEqual(['POST /sleep']);
    release();
    await settled(states, 2);
    expect(calls).toEqual(['POST /sleep', 'POST /wake_up']);
  });

  test.each([
    { name: 'has no such route', answers: { 'POST /sleep': 404 } },
    { name: 'was started without its sleep mode', answers: { 'POST /sleep': 500 } },
  ])('that $name cannot, and is never asked again', async ({ answers }) => {
    const { rest, calls, states } = serverOf(answers);
    rest.goTo('asleep');
    await settled(states, 1);
    rest.goTo('asleep');
    await rest.look();
    await rest.close();
    expect(states).toEqual(['cannot']);
    expect(calls.filter((call) => call !== 'POST /wake_up')).toEqual(['POST /sleep']);
  });

  test('that breaks off while it falls asleep is woken, for it may have', async () => {
    const { rest, calls, states } = serverOf({ 'POST /sleep': 'broken' });
    rest.goTo('asleep');
    await settled(states, 1);
    expect([states, calls]).toEqual([['cannot'], ['POST /sleep', 'POST /wake_up']]);
  });

  test('that does not wake is lost, and asked again when that is wished', async () => {
    const { rest, states } = serverOf({ 'POST /wake_up': 500 });
    rest.goTo('awake');
    await settled(states, 1);
    rest.goTo('awake');
    await settled(states, 2);
    expect(states).toEqual(['lost', 'lost']);
  });

  test.each([
    { body: '{"is_sleeping":true}', state: 'asleep' },
    { body: '{"is_sleeping":false}', state: 'awake' },
    { body: 'ready', state: 'awake' },
    { body: 404, state: 'cannot' },
  ])('is found as it says: $body', async ({ body, state }) => {
    const { rest, states } = serverOf({ 'GET /is_sleeping': body });
    await rest.look();
    expect(states).toEqual([state]);
  });

  test('that does not answer the question is taken for awake', async () => {
    const { rest, states } = serverOf({ 'GET /is_sleeping': 'broken' });
    await rest.look();
    expect(states).toEqual([]);
  });

  test('that was put to sleep is woken at the end, and one that was not is left alone', async () => {
    const ours = serverOf({});
    ours.rest.goTo('asleep');
    await settled(ours.states, 1);
    await ours.rest.close();
    expect(ours.calls).toEqual(['POST /sleep', 'POST /wake_up']);
    const foreign = serverOf({ 'GET /is_sleeping': '{"is_sleeping":true}' });
    await foreign.rest.look();
    await foreign.rest.close();
    foreign.rest.goTo('asleep');
    expect(foreign.calls).toEqual(['GET /is_sleeping']);
  });
});
