// What gateways tell each other of what they have learnt: the text of one, and all of them together. Pure.
//
// A value that is out of its bounds, or not a number at all, is left out by itself; the rest of a text still counts. Unlike a load,
// what was learnt is not void once its gateway is gone: the one that comes after a restart begins with it.
import { z } from 'zod';
import type { ReplicaId } from '../core/job.ts';
import type { Learning, Learnt } from '../core/shared-learning.ts';
import { BYTES_PER_TOKEN_BOUNDS, SAMPLES_MAX, TIME_SCALE_BOUNDS, together } from '../core/shared-learning.ts';
import { GATEWAYS_MAX, REPLICAS_MAX } from './peer-loads.ts';

export const MODELS_MAX = 64;
const NAME_CHARACTERS_MAX = 200;
/** Each entry is its name, escaped at worst, and its numbers. */
export const LEARNING_CHARACTERS_MAX = 100 + (REPLICAS_MAX + MODELS_MAX) * (NAME_CHARACTERS_MAX + 60);
/** Of a field that nobody writes any more: some ten minutes of the reader's beats, after which it is rubbish. */
const ABANDONED_READINGS = 40;

const samples = z.int().min(0).max(SAMPLES_MAX);
const scale = z.number().min(TIME_SCALE_BOUNDS.min).max(TIME_SCALE_BOUNDS.max);
const scales = z.tuple([scale, samples, scale, samples]);
const ratio = z.tuple([z.number().min(BYTES_PER_TOKEN_BOUNDS.min).max(BYTES_PER_TOKEN_BOUNDS.max), samples]);
const told = z.object({ scales: z.record(z.string(), z.unknown()), bytes: z.record(z.string(), z.unknown()) });

export interface PeerLearning {
  /** An answer of the store: all the fields there are, or as many as it gives. */
  read(fields: Iterable<readonly [field: string, text: string]>): { readonly gateways: number; readonly learning: Learning };
  /** Forgets and names the fields that nobody has written for long. */
  takeAbandoned(): readonly string[];
}

/** '' where nothing was learnt. `count` makes every text unlike the one before it, by which those who write it are known to live. */
export function learningText(count: number, { timeScales, bytesPerToken }: Learning): string {
  const seen = [...timeScales].filter(([id, { prefill, decode }]) => prefill.samples + decode.samples > 0 && id.length <= NAME_CHARACTERS_MAX).slice(0, REPLICAS_MAX);
  const models = [...bytesPerToken].filter(([model, learnt]) => learnt.samples > 0 && model.length <= NAME_CHARACTERS_MAX).slice(0, MODELS_MAX);
  if (seen.length + models.length === 0) return '';
  return JSON.stringify({
    count,
    scales: Object.fromEntries(seen.map(([replicaId, { prefill, decode }]) => [replicaId, [...numbers(prefill), ...numbers(decode)]])),
    bytes: Object.fromEntries(models.map(([model, learnt]) => [model, numbers(learnt)])),
  });
}

export function createPeerLearning(ownField: string): PeerLearning {
  const unchanged = new Map<string, { text: string; readings: number }>();
  return {
    read(fields) {
      const [prefill, decode, bytes] = [new Map<string, Learnt[]>(), new Map<string, Learnt[]>(), new Map<string, Learnt[]>()];
      const add = (to: Map<string, Learnt[]>, name: string, value: number, count: number): void => void to.set(name, [...(to.get(name) ?? []), { value, samples: count }]);
      let gateways = 0;
      for (const [field, text] of fields) {
        if (field === ownField) continue;
        const known = unchanged.get(field);
        if (known?.text === text) known.readings += 1;
        else if (known !== undefined || unchanged.size < GATEWAYS_MAX) unchanged.set(field, { text, readings: 0 });
        const heard = toldIn(text);
        if (heard === null) continue;
        gateways += 1;
        for (const [replicaId, value] of Object.entries(heard.scales)) {
          const read = scales.safeParse(value);
          if (!read.success) continue;
          add(prefill, replicaId, read.data[0], read.data[1]);
          add(decode, replicaId, read.data[2], read.data[3]);
        }
        for (const [model, value] of Object.entries(heard.bytes)) {
          const read = ratio.safeParse(value);
          if (read.success) add(bytes, model, read.data[0], read.data[1]);
        }
      }
      const timeScales = new Map([...prefill].map(([id, each]) => [id as ReplicaId, { prefill: together(each), decode: together(decode.get(id) ?? []) }] as const));
      return { gateways, learning: { timeScales, bytesPerToken: new Map([...bytes].map(([model, each]) => [model, together(each)] as const)) } };
    },
    takeAbandoned() {
      const abandoned = [...unchanged].filter(([, { readings }]) => readings >= ABANDONED_READINGS).map(([field]) => field);
      for (const field of abandoned) unchanged.delete(field);
      return abandoned;
    },
  };
}

/** `null` where it is not what a gateway writes. */
function toldIn(text: string): z.infer<typeof told> | null {
  if (text.length > LEARNING_CHARACTERS_MAX) return null;
  try {
    const read = told.safeParse(JSON.parse(text));
    return read.success ? read.data : null;
  } catch {
    return null;
  }
}

function numbers({ value, samples: count }: Learnt): readonly [number, number] {
  return [Math.round(value * 10_000) / 10_000, Math.min(SAMPLES_MAX, Math.floor(count))];
}
