// The dashboard, as a part of the gateway: what it remembers is told to it here, and what it shows is put together when somebody looks.
import { dashboardDocument, STYLE } from './dashboard/document.ts';
import { type FragmentName, fragmentsOf, type Fragments } from './dashboard/fragments.ts';
import { createHistory, POWER_SAMPLES_MAX, WINDOW_MS } from './dashboard/history.ts';
import { SCRIPT } from './dashboard/script.ts';
import type { DashboardView } from './dashboard/view.ts';
import type { ReplicaId } from './core/job.ts';
import type { DashboardPage } from './http/dashboard-routes.ts';
import type { Demand } from './runtime.ts';
import type { JobReport, RejectReason } from './scheduler/events.ts';

export interface GatewayDashboard {
  readonly page: DashboardPage;
  demanded(demand: Demand): void;
  reported(report: JobReport): void;
  rejected(reason: RejectReason, sloClass: string): void;
  undemanded(replicaId: ReplicaId): void;
  /** Samples power from now on. */
  start(): void;
  close(): void;
}

/** All but what is remembered here; asked for when somebody looks. */
type Read = () => Omit<DashboardView, 'atUnixMs' | 'remembered'>;

const SAMPLE_EVERY_MS = Math.ceil(WINDOW_MS / POWER_SAMPLES_MAX);

/** `unixNowMs`: the time of day, since people read it. */
export function openDashboard({ read, snapshot, warn, unixNowMs = Date.now }: { readonly read: Read; readonly snapshot: () => DashboardView['snapshot']; readonly warn: (message: string) => void; readonly unixNowMs?: () => number }): GatewayDashboard {
  const history = createHistory();
  /** Warned of once each: the page is drawn every second. */
  const faulty = new Set<FragmentName>();
  let timer: NodeJS.Timeout | null = null;

  function fragments(): Fragments {
    const atUnixMs = unixNowMs();
    return fragmentsOf({ ...read(), atUnixMs, remembered: history.read(atUnixMs) }, fault);
  }

  function fault(name: FragmentName, error: unknown): void {
    if (faulty.has(name)) return;
    faulty.add(name);
    warn(`the dashboard's part '${name}' cannot be drawn: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  }

  function sample(): void {
    const watts = snapshot().replicas.flatMap(({ energy }) => (energy?.powerW == null ? [] : [energy.powerW]));
    history.sampled({ atUnixMs: unixNowMs(), powerW: watts.length === 0 ? null : watts.reduce((sum, one) => sum + one) });
  }

  return {
    page: { document: () => dashboardDocument(fragments()), style: STYLE, script: SCRIPT, fragments },
    demanded: (demand) => history.demanded(demand, unixNowMs()),
    reported: (report) => history.reported(report, unixNowMs()),
    rejected: (reason, sloClass) => history.rejected(reason, sloClass, unixNowMs()),
    undemanded: history.undemanded,
    start: () => {
      timer = setInterval(sample, SAMPLE_EVERY_MS).unref();
    },
    close: () => {
      if (timer !== null) clearInterval(timer);
    },
  };
}
