import assert from 'node:assert/strict';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { BatchingEngine, EngineLimits, EngineRequest } from '../../src/engine/batching.ts';
import { createBatchingEngine } from '../../src/engine/batching.ts';

const LIMITS: EngineLimits = { maxBatchTokens: 64, maxSequences: 8, kvTokens: 1024 };

function finishAll(engine: BatchingEngine<number>): Map<number, number> {
  const tokens = new Map<number, number>();
  for (let work = engine.beginIteration(); work !== null; work = engine.beginIteration()) {
    for (const event of engine.endIteration()) tokens.set(event.id, event.outputTokens);
  }
  return tokens;
}

describe('a batch', () => {
  test('holds every decode first and fills the rest of the budget with prompt chunks in order of arrival', () => {
    const engine = createBatchingEngine<string>(LIMITS);
    engine.submit({ id: 'first', promptTokens: 10, outputTokens: 5 });
    engine.beginIteration();
    engine.endIteration();
    engine.submit({ id: 'second', promptTokens: 100, outputTokens: 5 });
    engine.submit({ id: 'third', promptTokens: 10, outputTokens: 5 });
    expect(engine.beginIteration()).toEqual({ decode: { sequences: 1, contextTokens: 11 }, prefill: { tokens: 63, contextTokens: 0 } });
    expect(engine.endIteration().map(({ id }) => id)).toEqual(['first']);
    const work = engine.beginIteration();
    expect(work?.prefill.tokens).toBe(37 + 10);
    expect(engine.endIteration().map(({ id, kind, outputTokens }) => [id, kind, outputTokens])).toEqual([['first', 'token', 3], ['second', 'token', 1], ['third', 'token', 1]]);
  });

  test('of several prompts has the attention work of each by itself', () => {
    const engine = createBatchingEngine<string>(LIMITS);
    engine.submit({ id: 'first', promptTokens: 20, outputTokens: 1 });
    engine.submit({ id: 'second', promptTokens: 30, outputTokens: 1 });
    const { tokens, contextTokens } = engine.beginIteration()?.prefill ?? { tokens: 0, contextTokens: 0 };
    expect(tokens * (tokens / 2 + contextTokens)).toBeCloseTo((20 * 20 + 30 * 30) / 2);
  });

  test('takes lower priority numbers first', () => {
    const engine = createBatchingEngine<string>({ ...LIMITS, maxSequences: 1 });
    engine.submit({ id: 'late', promptTokens: 10, outputTokens: 1, priority: 5 });
    engine.submit({ id: 'urgent', promptTokens: 10, outputTokens: 1, priority: -1 });
    engine.beginIteration();
    expect(engine.endIteration()[0]?.id).toBe('urgent');
  });

  test('of embeddings ends with the prefill and without a token', () => {
    const engine = createBatchingEngine<string>(LIMITS);
    engine.submit({ id: 'embed', promptTokens: 100, outputTokens: 0 });
    engine.beginIteration();
    expect(engine.endIteration()).toHaveLength(0);
    engine.beginIteration();
    expect(engine.endIteration()).toMatchObject([{ kind: 'finished', outputTokens: 0 }]);
    expect(engine.stats()).toMatchObject({ kvUsage: 0, generationTokens: 0, promptTokens: 100 });
  });
});

describe('submit', () => {
  test('refuses what can never fit and what finds the queue full', () => {
    const engine = createBatchingEngine<string>({ ...LIMITS, waitingMax: 1 });
    expect(engine.submit({ id: 'big', promptTokens: 1000, outputTokens: 25 })).toEqual({ kind: 'rejected', reason: 'exceeds-kv' });
    expect(engine.submit({ id: 'fits', promptTokens: 1000, outputTokens: 24 })).toEqual({ kind: 'queued' });
    expect(engine.submit({ id: 'more', promptTokens: 1, outputTokens: 1 })).toEqual({ kind: 'rejected', reason: 'queue-full' });
  });

  test('refuses limits with which a full batch could not decode', () => {
    expect(() => createBatchingEngine({ maxBatchTokens: 4, maxSequences: 8, kvTokens: 1024 })).toThrow('want at least maxSequences');
  });
});

describe('the prefix cache', () => {
  const request = (id: string, prefixBlocks: readonly number[]): EngineRequest<string> => ({ id, promptTokens: 16 * prefixBlocks.length, outputTokens: 1, prefixBlocks });
  const run = (engine: BatchingEngine<string>, submitted: EngineRequest<string>): number => {
    engine.submit(submitted);
    for (;;) {
      engine.beginIteration();
      const [event] = engine.endIteration();
      if (event !== undefined) return event.cachedTokens;
    }
  };

  test('spares a second prompt the leading blocks they share, but never its last token', () => {
    const engine = createBatchingEngine<string>(LIMITS);
    expect(run(engine, request('a', [1, 2, 3, 4]))).toBe(0);
    expect(run(engine, request('b', [1, 2, 9, 4]))).toBe(32);
    expect(run(engine, request('c', [1, 2, 3, 4]))).toBe(48);
    expect(engine.stats()).toMatchObject({ prefixQueryTokens: 3 * 64, prefixHitTokens: 80, kvUsage: 0 });
  });

  test('lets go of what was used longest ago when room is needed', () => {
    const engine = createBatchingEngine<string>({ ...LIMITS, kvTokens: 7 * 16 });
    run(engine, request('a', [1, 2]));
    run(engine, request('b', [3, 4]));
    run(engine, request('a again', [1, 2]));
    run(engine, { id: 'c', promptTokens: 5 * 16, outputTokens: 1 });
    expect(run(engine, request('b again', [3, 4]))).toBe(0);
    expect(run(engine, request('a third', [1, 2, 5]))).toBe(32);
  });

  test('lets two requests under way share blocks once the first has computed them', () => {
    const engine = createBatchingEngine<string>(LIMITS);
    engine.submit({ id: 'a', promptTokens: 64, outputTokens: 10, prefixBlocks: [1, 2, 3, 4] });
    engine.beginIteration();
    engine.endIteration();
    engine.submit({ id: 'b', promptTokens: 64, outputTokens: 10, prefixBlocks: [1, 2, 3, 4] });
    for (let iteration = 0; iteration < 2; iteration++) {
      engine.beginIteration();
      engine.endIteration();
    }
    // Four shared blocks; each has one of its own for its output.
    expect(engine.stats().kvUsage).toBe((4 + 1 + 1) / 64);
  });
});

test('a preempted request computes its prompt and its output again and still yields each token once', () => {
  const engine = createBatchingEngine<number>({ maxBatchTokens: 64, maxSequences: 4, kvTokens: 96 });
  engine.submit({ id: 1, promptTokens: 32, outputTokens: 60 });
  engine.submit({ id: 2, promptTokens: 32, outputTokens: 60 });
  expect(finishAll(engine)).toEqual(new Map([[1, 60], [2, 60]]));
  expect(engine.stats()).toMatchObject({ preemptions: 1, promptTokens: 64, generationTokens: 120, kvUsage: 0 });
});

// Laws over random lives of an engine: whatever is submitted and cancelled when, and however iterations are grouped.
const requestArbitrary = fc.record({
  promptTokens: fc.integer({ min: 1, max: 200 }),
  outputTokens: fc.integer({ min: 0, max: 80 }),
  family: fc.integer({ min: 0, max: 3 }),
  priority: fc.constantFrom(0, 0, 0, 1),
});
const stepArbitrary = fc.oneof(
  { weight: 3, arbitrary: requestArbitrary.map((request) => ({ kind: 'submit' as const, request })) },
  { weight: 1, arbitrary: fc.nat({ max: 60 }).map((id) => ({ kind: 'cancel' as const, id })) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('run' as const), cancelWithin: fc.option(fc.nat({ max: 60 }), { freq: 6 }), skip: fc.boolean() }) },
);
const limitsArbitrary = fc.record({ maxSequences: fc.integer({ min: 1, max: 8 }), extra: fc.integer({ min: 0, max: 100 }), kvTokens: fc.integer({ min: 160, max: 1200 }) });

test('every request yields exactly its tokens and one end, within every limit, in order among equals', () => {
  fc.assert(
    fc.property(limitsArbitrary, fc.array(stepArbitrary, { minLength: 1, maxLength: 80 }), ({ maxSequences, extra, kvTokens }, steps) => {
      const maxBatchTokens = maxSequences + extra;
      const engine = createBatchingEngine<number>({ maxBatchTokens, maxSequences, kvTokens });
      const requests = new Map<number, EngineRequest<number>>();
      const seen = new Map<number, number>();
      const over = new Set<number>();
      const firstTokens: number[] = [];
      let skipped = false;
      let nextId = 0;
      const take = (events: ReturnType<typeof engine.endIteration>, exact: boolean): void => {
        for (const { id, kind, outputTokens } of events) {
          assert(!over.has(id), `an event of ${id} after its end`);
          const request = requests.get(id) as EngineRequest<number>;
          if (exact && request.outputTokens > 0) assert.equal(outputTokens, (seen.get(id) ?? 0) + 1);
          if (!seen.has(id)) firstTokens.push(id);
          seen.set(id, outputTokens);
          if (kind === 'finished') {
            assert.equal(outputTokens, request.outputTokens);
            over.add(id);
          }
        }
      };
      const cancel = (id: number): void => {
        assert.equal(engine.cancel(id), requests.has(id) && !over.has(id));
        if (requests.has(id)) over.add(id);
      };
      const iterate = (cancelWithin: number | null): boolean => {
        const contextTokens = [...requests.values()].reduce((sum, { id, promptTokens }) => sum + (over.has(id) || engine.outputTokensOf(id) === undefined ? 0 : promptTokens + (engine.outputTokensOf(id) as number)), 0);
        const work = engine.beginIteration();
        const { kvUsage, running, decoding } = engine.stats();
        assert(kvUsage >= 0 && kvUsage <= 1 && running <= maxSequences);
        if (work === null) return false;
        assert(work.decode.sequences + work.prefill.tokens <= maxBatchTokens && work.decode.sequences + work.prefill.tokens > 0);
        assert(work.decode.contextTokens <= contextTokens);
        if (decoding === [...requests.keys()].filter((id) => !over.has(id)).length) assert.equal(work.decode.contextTokens, contextTokens);
        if (cancelWithin !== null) cancel(cancelWithin);
        take(engine.endIteration(), !skipped);
        return true;
      };
      for (const step of steps) {
        if (step.kind === 'submit') {
          const { promptTokens, outputTokens, family, priority } = step.request;
          const prefixBlocks = Array.from({ length: Math.floor(promptTokens / 16) }, (_, index) => family * 1000 + index);
          const request = { id: nextId++, promptTokens, outputTokens, prefixBlocks, priority };
          if (engine.submit(request).kind === 'queued') requests.set(request.id, request);
          else assert(promptTokens + outputTokens > Math.floor(kvTokens / 16) * 16);
        } else if (step.kind === 'cancel') cancel(step.id);
        else if (step.skip && engine.iterationsUntilChange() > 0) {
          const iterations = engine.iterationsUntilChange();
          const before = engine.stats();
          take(engine.skipIterations(iterations), false);
          skipped = true;
          assert.equal(engine.stats().generationTokens, before.generationTokens + iterations * before.decoding);
          assert.equal(engine.stats().preemptions, before.preemptions);
        } else iterate(step.cancelWithin);
      }
      for (let guard = 0; iterate(null); guard++) assert(guard < 100_000, 'it comes to an end');
      assert.equal(engine.stats().kvUsage, 0);
      assert.equal(engine.stats().running + engine.stats().waiting, 0);
      for (const id of requests.keys()) assert(over.has(id), `${id} was left over`);
      // First tokens come in order of arrival among those of one priority that were never thrown out.
      if (engine.stats().preemptions > 0) return;
      for (const priority of [0, 1]) {
        const order = firstTokens.filter((id) => requests.get(id)?.priority === priority);
        if (![...requests.values()].some((request) => request.priority !== priority)) assert.deepEqual(order, [...order].sort((a, b) => a - b));
      }
    }),
    { numRuns: 1500 },
  );
});

test('skipping to the next change gives the same as running each iteration', () => {
  fc.assert(
    fc.property(fc.array(requestArbitrary, { minLength: 1, maxLength: 30 }), fc.integer({ min: 300, max: 2000 }), (requests, kvTokens) => {
      const outcomes = [false, true].map((skip) => {
        const engine = createBatchingEngine<number>({ maxBatchTokens: 64, maxSequences: 8, kvTokens }, 'first-and-last');
        requests.forEach(({ promptTokens, outputTokens }, id) => engine.submit({ id, promptTokens, outputTokens }));
        const log: unknown[] = [];
        for (;;) {
          const iterations = skip ? engine.iterationsUntilChange() : 0;
          if (iterations === 0 && engine.beginIteration() === null) break;
          const events = iterations > 0 ? engine.skipIterations(iterations) : engine.endIteration();
          for (const event of events) log.push([engine.stats().iterations, event.id, event.kind, event.outputTokens]);
        }
        return { log, stats: engine.stats() };
      });
      expect(outcomes[1]).toEqual(outcomes[0]);
    }),
    { numRuns: 300 },
  );
});
