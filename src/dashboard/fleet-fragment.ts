// The fleet now: a few figures, what is wrong, and a card for each replica that says what it runs at and why.
import type { ClockGroupStatus } from '../scheduler/clock-group.ts';
import { escaped } from '../plot/escape.ts';
import type { DashboardView, Replica } from './view.ts';
import { clockText, durationText, energyText, powerText, reasonText, shareText } from './words.ts';

/** Further ones are in `/paceline/status`. */
export const CARDS_MAX = 48;

export function figuresFragment(view: DashboardView): string {
  const { snapshot, remembered, inFlight } = view;
  const metered = snapshot.replicas.flatMap(({ energy }) => (energy?.powerW == null ? [] : [energy.powerW]));
  const tightest = tightestOf(snapshot.replicas);
  const met = remembered.attainment.reduce((sum, one) => sum + one.met, 0);
  const all = met + remembered.attainment.reduce((sum, one) => sum + one.missed, 0);
  const saved = savedOf(view);
  return `<dl class="figures">${[
    figure('Power', metered.length === 0 ? null : powerText(metered.reduce((sum, watts) => sum + watts)), metered.length === snapshot.replicas.length ? 'of all replicas’ devices, by their counters' : `${metered.length} of ${snapshot.replicas.length} replicas have a meter`),
    figure('Requests here', String(inFlight), `${snapshot.queued} wait in our queue`),
    figure('Tightest deadline', tightest === null ? 'none' : durationText(tightest.slackMs), tightest === null ? 'no deadline binds a clock now' : `of slack, on ${tightest.replicaId}`, tightest !== null && tightest.slackMs < 0 ? 'bad' : undefined),
    figure('SLOs met', all === 0 ? null : shareText(met / all), all === 0 ? 'no request with a deadline lately' : `of ${all} in 15 minutes; target ${shareText(view.attainmentTarget)}`, all > 0 && met / all < view.attainmentTarget ? 'bad' : undefined),
    figure('Energy, against maximum clock', saved === null ? null : `${saved.share <= 0 ? '−' : '+'}${shareText(Math.abs(saved.share))}`, saved === null ? 'nothing served yet' : 'a counterfactual by the profile, idling included; since the start'),
  ].join('')}</dl>`;
}

/** What the same work, and idling, would have taken at the fastest point. `null`: nothing was served. */
export function savedOf({ energy, snapshot }: Pick<DashboardView, 'energy' | 'snapshot'>): { readonly tookJ: number; readonly maximumClockJ: number; readonly share: number } | null {
  let [tookJ, maximumClockJ] = [0, 0];
  for (const row of energy) {
    tookJ += row.meteredJ + row.modelledJ;
    maximumClockJ += row.maximumClockJ;
  }
  if (maximumClockJ <= 0) return null;
  for (const { energy: own } of snapshot.replicas) {
    if (own === undefined) continue;
    tookJ += own.idle.meteredJ + own.idle.modelledJ;
    maximumClockJ += own.maximumClock.idleJ;
  }
  return { tookJ, maximumClockJ, share: tookJ / maximumClockJ - 1 };
}

export function problemsFragment({ snapshot, agents, draining }: DashboardView): string {
  const problems = [
    ...(draining ? ['This gateway takes no more requests: it is leaving.'] : []),
    ...snapshot.replicas.flatMap(({ replicaId, state, breaker }) => [
      ...(state === 'down' ? [`${replicaId} is down.`] : state === 'draining' ? [`${replicaId} is draining: it gets nothing new.`] : []),
      ...(breaker === 'closed' ? [] : [`The breaker of ${replicaId} is ${breaker}: it has failed requests.`]),
    ]),
    ...[...agents].flatMap(([name, { state }]) => (state === 'lost' ? [`The agent ${name} is lost: its devices are at default clocks, requests are served.`] : [])),
  ];
  if (problems.length === 0) return '';
  const more = problems.length - PROBLEMS_MAX;
  return `<ul class="problems">${problems.slice(0, PROBLEMS_MAX).map((problem) => `<li>${escaped(problem)}</li>`).join('')}${more > 0 ? `<li>… and ${more} more</li>` : ''}</ul>`;
}

const PROBLEMS_MAX = 12;

export function fleetFragment(view: DashboardView): string {
  const { replicas } = view.snapshot;
  if (replicas.length === 0) return '<p>There is no replica.</p>';
  const more = replicas.length - CARDS_MAX;
  return `<div class="cards">${replicas.slice(0, CARDS_MAX).map((replica) => card(replica, view)).join('')}</div>${more > 0 ? `<p>… and ${more} more; <a href="/paceline/status">/paceline/status</a> has all.</p>` : ''}`;
}

function card(replica: Replica, { beliefs }: DashboardView): string {
  const { replicaId, state, energy, runningStreams, waitingPrompts, room, groups } = replica;
  const model = beliefs.get(replicaId);
  const power = energy?.powerW == null ? '<span class="none">not metered</span>' : escaped(powerText(energy.powerW));
  const clocks = groups === undefined ? [['', replica] as const] : [['prefill ', groups.prefill] as const, ['decode ', groups.decode] as const];
  return `<article class="card" aria-label="${escaped(replicaId)}"><h3>${escaped(replicaId)} ${chip(replica)}</h3>${clocks
    .map(([name, group]) => `<p class="clock">${name}<strong>${escaped(clockText(model, group.controlled ? group.pointId : null))}</strong></p><p class="why">${escaped(whyText(group, state))}</p>`)
    .join('')}<dl class="facts">${fact('power', power)}${fact('streams', String(runningStreams))}${fact('prompts waiting', String(waitingPrompts))}${fact('room for', String(room))}${fact('idling so far', energy === undefined ? '<span class="none">not counted</span>' : escaped(energyText(energy.idle.meteredJ + energy.idle.modelledJ)))}${fact('step / modelled', replica.stepTimeResidual.toFixed(2))}</dl></article>`;
}

function whyText({ why }: ClockGroupStatus, state: Replica['state']): string {
  const reason = reasonText(why);
  const slack = why.slackMs === undefined ? '' : why.slackMs < 0 ? `; the tightest deadline is lost by ${durationText(-why.slackMs)}` : `; ${durationText(why.slackMs)} of slack at the tightest`;
  return `${state === 'down' ? 'It does not answer. ' : ''}${reason.charAt(0).toUpperCase()}${reason.slice(1)}${slack}.`;
}

/** The word says it; colour only repeats it. */
function chip({ state, breaker, rest = 'awake' }: Replica): string {
  const serving = breaker === 'closed' ? (['good', rest === 'awake' ? 'up' : rest.replace('-', ' ')] as const) : (['warn', `breaker ${breaker}`] as const);
  const [kind, text] = state !== 'up' ? [state === 'down' ? 'bad' : 'warn', state] : serving;
  return `<span class="chip ${kind}">${text}</span>`;
}

function tightestOf(replicas: readonly Replica[]): { readonly replicaId: string; readonly slackMs: number } | null {
  let tightest: { replicaId: string; slackMs: number } | null = null;
  for (const { replicaId, why, groups } of replicas) {
    for (const { slackMs } of groups === undefined ? [why] : [groups.prefill.why, groups.decode.why]) {
      if (slackMs !== undefined && (tightest === null || slackMs < tightest.slackMs)) tightest = { replicaId, slackMs };
    }
  }
  return tightest;
}

function figure(name: string, value: string | null, note: string, kind?: 'bad'): string {
  return `<div${kind === undefined ? '' : ` class="${kind}"`}><dt>${escaped(name)}</dt><dd>${value === null ? '<span class="none">–</span>' : escaped(value)}<small>${escaped(note)}</small></dd></div>`;
}

function fact(name: string, html: string): string {
  return `<div><dt>${escaped(name)}</dt><dd>${html}</dd></div>`;
}
