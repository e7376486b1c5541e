// A governor by utilisation, as Linux has for CPUs: above a threshold to the top at once, below it in proportion.
// Source: Pallipadi and Starikovskiy, The Ondemand Governor (Linux Symposium 2006); drivers/cpufreq/cpufreq_ondemand.c, whose
// defaults these are (up_threshold 80 %, sampling_down_factor 1, next frequency = min + load · (max − min)).
// Adapted: utilisation is what nvidia-smi shows, the share of time with any kernel on the device, which a decoding server
// keeps near 100 % whatever its clock; "in proportion" goes by place in the list of points, not by clock.
// Left out: powersave_bias, I/O wait as load, and the freq_table rounding relations.
import type { ReplicaId } from '../../core/job.ts';
import type { ClockPolicy } from '../../scheduler/clock-policy.ts';
import type { RivalContext } from './rival.ts';

const UP_THRESHOLD = 0.8;

interface Sample {
  readonly atMs: number;
  readonly busyMs: number;
}

/** It knows no SLO: the margin lowers the threshold instead, so that it goes to the top earlier. */
export function createOndemand({ belief, busyMs, margin }: RivalContext): ClockPolicy {
  const points = belief.bySlowness;
  const threshold = UP_THRESHOLD * (1 - margin);
  const samples = new Map<ReplicaId, Sample>();
  return {
    name: 'ondemand',
    choose(replicaId, { nowMs }, cause) {
      if (cause === 'arrival') return null;
      const last = samples.get(replicaId) ?? { atMs: 0, busyMs: 0 };
      const sample = { atMs: nowMs, busyMs: busyMs(replicaId) };
      samples.set(replicaId, sample);
      if (sample.atMs <= last.atMs) return null;
      const load = Math.min(1, (sample.busyMs - last.busyMs) / (sample.atMs - last.atMs));
      if (load > threshold) return belief.fastest;
      return points[Math.round(load * (points.length - 1))] ?? belief.fastest;
    },
  };
}
