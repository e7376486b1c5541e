// What a sweep found, as a page: how well the profile describes its own rows, the frontier of each phase, and each measurement.
import { frontierSvg, phaseTitle } from '../frontier-view/figures.ts';
import { notesOf } from '../frontier-view/plausibility.ts';
import type { PerformanceModel } from '../frontier/performance-model.ts';
import { chart, type Series } from '../plot/chart.ts';
import { page, type Part } from '../plot/page.ts';
import { type Measurement, workText } from './measurement.ts';

/** `model` is of the profile that came of it; `null` where there is none, for want of energy. The same values give the same bytes. */
export function sweepPage(title: string, lead: string, model: PerformanceModel | null, done: readonly Measurement[]): string {
  const sections = [...(model === null ? [] : [fitSection(model), frontierSection(model), rowSection(model)]), { heading: 'Measurements', parts: [measurementsTable(done)] }];
  return page({ title, lead, sections });
}

function fitSection(model: PerformanceModel): { readonly heading: string; readonly parts: readonly Part[] } {
  const { prefill, decode } = model.fitError;
  const percent = (value: number): string => `${value.toFixed(1)} %`;
  const notes = notesOf(model).map(({ where, what }) => `${where}: ${what}.`);
  return {
    heading: 'How well the fit describes what was measured',
    parts: [
      { kind: 'figures', figures: [{ name: 'Prefill, time', value: percent(prefill.timePct), note: `mean error over ${prefill.rows} rows` }, { name: 'Prefill, energy', value: percent(prefill.energyPct) }, { name: 'Decode, time', value: percent(decode.timePct), note: `mean error over ${decode.rows} rows` }, { name: 'Decode, energy', value: percent(decode.energyPct) }] },
      ...notes.map((text): Part => ({ kind: 'text', text })),
    ],
  };
}

function frontierSection(model: PerformanceModel): { readonly heading: string; readonly parts: readonly Part[] } {
  const work = { promptTokens: Math.min(1024, model.profile.serving.maxBatchTokens), sequences: Math.min(16, model.profile.serving.maxSequences), contextTokens: 1024 };
  const profiles = [{ name: model.profile.name, model }];
  return { heading: 'Frontiers', parts: (['prefill', 'decode'] as const).map((phase): Part => ({ kind: 'figure', svg: frontierSvg(profiles, phase, work), caption: phaseTitle(phase, work) })) };
}

/** Measured times over the size of the work, and the fit through them. */
function rowSection({ profile, points, prefillTimeMs, decodeTimeMs }: PerformanceModel): { readonly heading: string; readonly parts: readonly Part[] } {
  const lines = (of: (id: string, index: number) => readonly { readonly x: number; readonly y: number }[]): Series[] => points.map(({ id }, index) => ({ name: `${id} MHz`, shape: 'line', points: of(id, index) }));
  const prefill = lines((id, index) => profile.prefill.filter((row) => row.point === id && row.contextTokens === 0).toSorted((a, b) => a.tokens - b.tokens).map((row) => ({ x: row.tokens, y: prefillTimeMs(row, index) })));
  const decode = lines((id, index) => profile.decode.filter((row) => row.point === id).toSorted((a, b) => a.sequences - b.sequences).map((row) => ({ x: row.sequences, y: decodeTimeMs(row, index) })));
  const seen = (rows: readonly { readonly x: number; readonly y: number }[]): Series => ({ name: 'measured', shape: 'marks', points: rows });
  return {
    heading: 'Time by size',
    parts: [
      { kind: 'figure', svg: chart({ title: 'Prefill of one batch', description: 'Time against tokens, fits as lines', x: { label: 'tokens', scale: 'log' }, y: { label: 'ms', scale: 'log' }, series: [...prefill, seen(profile.prefill.filter((row) => row.contextTokens === 0).map((row) => ({ x: row.tokens, y: row.timeMs })))] }) },
      { kind: 'figure', svg: chart({ title: 'Decode step', description: 'Time against sequences, fits as lines; contexts differ', x: { label: 'sequences', scale: 'log' }, y: { label: 'ms' }, series: [...decode, seen(profile.decode.map((row) => ({ x: row.sequences, y: row.timeMs })))] }) },
    ],
  };
}

function measurementsTable(done: readonly Measurement[]): Part {
  return {
    kind: 'table',
    columns: ['clock (MHz)', 'work', 'time (ms)', 'power (W)', 'actual clock (MHz)', 'throttled', 'window (ms)', 'seen'],
    rows: done.map(({ clockMhz, work, timeMs, powerW, actualClockMhz, throttleReasons, windowMs, count }) => [clockMhz === null ? 'as found' : String(clockMhz), workText(work), work.kind === 'idle' ? '–' : timeMs, powerW, actualClockMhz, throttleReasons.join(', ') || '–', windowMs, count]),
  };
}
