// What a request took of the devices' energy, told to whoever asks: in headers of a whole answer, and in the usage of a stream. It
// is what is known by then, and says where from; what counters tell later is in the accounts alone.
import type { IncomingHttpHeaders, ServerResponse } from 'node:http';
import type { JobEnergy } from '../core/energy-ledger.ts';
import type { AnswerHead } from './answer-head.ts';
import { isReadableStream } from './answer-head.ts';
import { type AnswerWriter, ofEvents } from './answer-writer.ts';
import type { Endpoint } from './endpoints.ts';

export type EnergyAsked = { readonly kind: 'ok'; readonly asked: boolean } | { readonly kind: 'bad'; readonly param: string; readonly message: string };

const HEADER = 'x-paceline-energy';

export function readEnergyAsked(headers: IncomingHttpHeaders): EnergyAsked {
  const given = headers[HEADER];
  if (given === undefined || given === '0' || given === 'false') return { kind: 'ok', asked: false };
  if (given === '1' || given === 'true') return { kind: 'ok', asked: true };
  return { kind: 'bad', param: HEADER, message: `${HEADER}: got '${String(given).slice(0, 100)}', allowed: 1, true, 0, false` };
}

/** `metered`: by the devices' counters alone; `partly-metered`: what they have not told yet is by the profile; `modelled`: all of it is. */
function sourceOf({ meteredJ, modelledJ }: JobEnergy): 'metered' | 'partly-metered' | 'modelled' {
  if (modelledJ === 0) return 'metered';
  return meteredJ === 0 ? 'modelled' : 'partly-metered';
}

/** Before the answer's own headers are written. */
export function setEnergyHeaders(outgoing: ServerResponse, energy: JobEnergy | null): void {
  if (energy === null || outgoing.headersSent) return;
  outgoing.setHeader('x-paceline-energy-mj', String(milliJoules(energy.meteredJ + energy.modelledJ)));
  outgoing.setHeader('x-paceline-energy-source', sourceOf(energy));
}

/** Into each usage that the stream tells; `null` for an answer that is none, or that cannot be read. */
export function energyWriterFor(endpoint: Endpoint, head: AnswerHead, energy: () => JobEnergy | null): AnswerWriter | null {
  if (head.statusCode !== 200 || !isReadableStream(head)) return null;
  const within = endpoint === 'responses' ? ['response', 'usage'] : ['usage'];
  return ofEvents({ name: 'energy', value: () => energyJson(energy()), within, beside: null });
}

function energyJson(energy: JobEnergy | null): string {
  return energy === null ? 'null' : JSON.stringify({ mj: milliJoules(energy.meteredJ + energy.modelledJ), metered_mj: milliJoules(energy.meteredJ), source: sourceOf(energy) });
}

function milliJoules(energyJ: number): number {
  return Math.round(1_000 * energyJ);
}
