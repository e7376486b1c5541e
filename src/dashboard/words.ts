// Numbers, instants and reasons, as people read them.
import type { PerformanceModel } from '../frontier/performance-model.ts';
import { settingText } from '../frontier-view/phase-points.ts';
import { numberText } from '../plot/scale.ts';
import { unreachable } from '../core/unreachable.ts';
import type { Explanation, RejectReason } from '../scheduler/events.ts';

/** "1290 MHz"; `null` is what devices do by themselves. */
export function clockText(model: PerformanceModel | undefined, pointId: string | null): string {
  if (pointId === null) return 'default clocks';
  const point = model?.points.find(({ id }) => id === pointId);
  return point === undefined || model === undefined ? pointId : settingText(model, point);
}

/** Why a replica runs as it does, in a sentence without its end. */
export function reasonText({ binding, jobId }: Explanation): string {
  const whose = jobId === undefined ? 'a request' : `request ${jobId}`;
  switch (binding) {
    case 'idle':
      return 'nothing to do: it waits at the least idle power from which the next request would still be in time';
    case 'ttft':
      return `any slower, and ${whose} would get its first token too late`;
    case 'tpot':
      return `any slower, and the tokens of ${whose} would come too slowly`;
    case 'e2e':
      return `any slower, and ${whose} would end too late`;
    case 'stability':
      return 'any slower, and more would come than it gets done';
    case 'energy':
      return 'no deadline binds: of prompts and tokens together it takes the least energy here';
    case 'none-feasible':
      return 'as fast as it can: no clock meets every deadline with its margin';
    case 'power':
      return 'as fast as its part of the power budgets lets it';
    case 'policy':
      return 'the policy says so';
    case 'learning':
      return 'it has no profile, and too little was seen of it yet to run it any slower';
    case 'uncontrolled':
      return 'nobody drives its clocks';
    default:
      return unreachable(binding);
  }
}

export function rejectText(reason: RejectReason): string {
  switch (reason) {
    case 'no-replica':
      return 'no replica was there';
    case 'unknown-model':
      return 'nobody serves its model';
    case 'queue-full':
      return 'the queue was full';
    case 'queue-timeout':
      return 'it had waited as long as it may';
    case 'deadline-infeasible':
      return 'its deadlines could not be met';
    case 'draining':
      return 'the gateway is leaving';
    default:
      return unreachable(reason);
  }
}

export function durationText(ms: number): string {
  const size = Math.abs(ms);
  if (size < 1_000) return `${numberText(Math.round(ms))} ms`;
  return size < 120_000 ? `${numberText(ms / 1_000)} s` : `${numberText(ms / 60_000)} min`;
}

export function energyText(joules: number): string {
  const size = Math.abs(joules);
  if (size >= 3.6e6) return `${numberText(joules / 3.6e6)} kWh`;
  return size >= 10_000 ? `${numberText(joules / 1_000)} kJ` : `${numberText(joules)} J`;
}

export function powerText(watts: number): string {
  return Math.abs(watts) >= 10_000 ? `${numberText(watts / 1_000)} kW` : `${numberText(watts)} W`;
}

/** Rounded towards what is worse, so that 99.96 % of a target of 100 % is not written as 100 %. */
export function shareText(share: number): string {
  return `${numberText(Math.floor(share * 1_000 + 1e-9) / 10)} %`;
}

/** "14:05:09", of the time that all machines share. */
export function instantText(unixMs: number): string {
  return new Date(unixMs).toISOString().slice(11, 19);
}
