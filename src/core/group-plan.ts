// The plan of a server, whether its devices all run at one point or prefill and decode each have their own: planned by
// `planner.ts`, once or twice.
import { addStreamRisk, createRiskSum, type LossRisk, lossRisk, type Plan, planReplica, roomOf } from './planner.ts';
import { costsAt } from './point-costs.ts';
import { decodeView, prefillView } from './phase-views.ts';
import type { PhaseGroup, ReplicaView, RunningStream } from './replica-view.ts';

/** As `planReplica`; with groups the plan of each is in `groups`. `fixed`: no clocks can be driven, of neither group. */
export function planServer(view: ReplicaView, fixed = false): Plan {
  const { groups } = view;
  if (groups === undefined) return planReplica(view, fixed);
  const prefills = prefillView(view, groups);
  const prefill = planReplica(prefills, fixed || !groups.prefill.controlled);
  // Prompts are through when the point that is asked for has them through, be it faster or slower than now.
  const decode = planReplica(decodeView(view, groups, { view: prefills, point: prefill.point }), fixed || !groups.decode.controlled);
  const tighter = prefill.slackMs < decode.slackMs ? prefill : decode;
  const worst = PLAN_KINDS.find((kind) => prefill.kind === kind || decode.kind === kind) ?? 'meets';
  return { kind: worst, point: decode.point, binding: tighter.binding, bindingJobId: tighter.bindingJobId, slackMs: tighter.slackMs, lost: prefill.lost + decode.lost, groups: { prefill, decode } };
}

const PLAN_KINDS = ['infeasible', 'tight', 'meets'] as const;

/** Of a group, or of the whole where there are none. */
export function planOfGroup(plan: Plan, group: PhaseGroup | null): Plan {
  return group === null ? plan : (plan.groups?.[group] ?? plan);
}

/** As `lossRisk`: a prompt is late by its prefill, or it is a stream that the decode group may fail. */
export function serverRisk(view: ReplicaView): LossRisk {
  const { groups, model, nowMs } = view;
  if (groups === undefined) return lossRisk(view);
  const prefills = prefillView(view, groups);
  const { firstTokenMs } = costsAt(prefills, model.fastest);
  const decodes = decodeView(view, groups, { view: prefills, point: model.fastest });
  const fastest = costsAt(decodes, model.fastest);
  const risk = createRiskSum();
  for (const stream of view.running) addStreamRisk(risk, fastest, stream, nowMs);
  for (const [index, { ttftDeadlineAtMs, e2eDeadlineAtMs, guard, worth = 1 }] of prefills.waiting.entries()) {
    const late = nowMs + (firstTokenMs[index] as number) * roomOf(guard) > Math.min(ttftDeadlineAtMs, e2eDeadlineAtMs);
    if (late) risk.add(worth, 1, 1);
    else addStreamRisk(risk, fastest, decodes.running[view.running.length + index] as RunningStream, nowMs, worth);
  }
  return risk.sum(prefills.waiting.length > 0);
}
