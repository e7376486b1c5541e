// Counters, gauges and histograms, and their Prometheus text. Small on purpose: names and labels are declared where
// events are, label values come from closed lists, and counting is an addition to a number.

export interface Counter {
  add(labels: readonly string[], amount?: number): void;
  /** What it stands at, where somebody else counts. */
  total(labels: readonly string[], value: number): void;
  /**
   * What all of them stand at, where somebody else counts and some of it may yet be taken back: what falls into one series adds up, and
   * no series falls, for a counter that falls is taken for one that began anew.
   */
  refill(entries: Iterable<readonly [labels: readonly string[], value: number]>): void;
  /** Forgets all values: of things that may be gone. */
  clear(): void;
}

export interface Gauge {
  /** What the gauge reads at the next scrape. */
  set(labels: readonly string[], value: number): void;
  /** Forgets all values: for gauges that are filled anew at every scrape. */
  clear(): void;
}

export interface Histogram {
  observe(labels: readonly string[], value: number): void;
}

export interface Declaration {
  readonly name: string;
  readonly help: string;
  readonly labels?: readonly string[];
}

export interface Registry {
  counter(declaration: Declaration): Counter;
  gauge(declaration: Declaration): Gauge;
  /** `bounds` are upper bounds, ascending; above the last one is `+Inf`. */
  histogram(declaration: Declaration & { readonly bounds: readonly number[] }): Histogram;
  /** All series with this value of this label, of whatever metric: the thing is gone, and one of its name counts from nothing. */
  forget(label: string, value: string): void;
  render(): string;
  /** Of all metrics, in their order on the page. */
  declared(): readonly (Declaration & { readonly type: string })[];
}

/**
 * Label values beyond this many combinations of one metric are counted together as `other`. Lists are closed, so this
 * is for the mistake of a list that is not.
 */
const SERIES_MAX = 1_000;

export function createRegistry(): Registry {
  const metrics: { declaration: Declaration; type: string; lines: () => string[]; all: Map<string, { readonly labels: readonly string[] }> }[] = [];

  function series<Value>(create: () => Value): { of: (labels: readonly string[]) => Value; all: Map<string, { labels: readonly string[]; value: Value }> } {
    const all = new Map<string, { labels: readonly string[]; value: Value }>();
    return {
      all,
      of: (given) => {
        let labels = given;
        let key = labels.length === 1 ? (labels[0] as string) : labels.join('\u0000');
        let entry = all.get(key);
        if (entry === undefined) {
          if (all.size >= SERIES_MAX) {
            labels = labels.map(() => 'other');
            key = labels.join('\u0000');
            entry = all.get(key);
          }
          if (entry === undefined) {
            entry = { labels, value: create() };
            all.set(key, entry);
          }
        }
        return entry.value;
      },
    };
  }

  function scalars(declaration: Declaration, type: 'counter' | 'gauge') {
    const values = series(() => ({ value: 0 }));
    metrics.push({
      declaration,
      type,
      all: values.all,
      lines: () => [...values.all.values()].map(({ labels, value }) => `${declaration.name}${labelText(declaration.labels, labels)} ${numberText(value.value)}`),
    });
    return values;
  }

  return {
    counter: (declaration) => {
      const values = scalars(declaration, 'counter');
      return {
        add: (labels, amount = 1) => {
          values.of(labels).value += amount;
        },
        total: (labels, value) => {
          values.of(labels).value = value;
        },
        refill: (entries) => {
          const sums = new Map<{ value: number }, number>();
          for (const [labels, value] of entries) {
            const entry = values.of(labels);
            sums.set(entry, (sums.get(entry) ?? 0) + value);
          }
          for (const [entry, sum] of sums) entry.value = Math.max(entry.value, sum);
        },
        clear: () => values.all.clear(),
      };
    },
    gauge: (declaration) => {
      const values = scalars(declaration, 'gauge');
      return {
        set: (labels, value) => {
          values.of(labels).value = value;
        },
        clear: () => values.all.clear(),
      };
    },
    histogram: (declaration) => {
      const { bounds, name, labels: names = [] } = declaration;
      const values = series(() => ({ counts: new Float64Array(bounds.length + 1), sum: 0 }));
      metrics.push({
        declaration,
        type: 'histogram',
        all: values.all,
        lines: () =>
          [...values.all.values()].flatMap(({ labels, value }) => {
            let cumulative = 0;
            const buckets = Array.from(value.counts, (count, index) => {
              cumulative += count;
              const bound = bounds[index];
              return `${name}_bucket${labelText([...names, 'le'], [...labels, bound === undefined ? '+Inf' : numberText(bound)])} ${cumulative}`;
            });
            const suffix = labelText(names, labels);
            return [...buckets, `${name}_sum${suffix} ${numberText(value.sum)}`, `${name}_count${suffix} ${cumulative}`];
          }),
      });
      return {
        observe: (labels, value) => {
          const entry = values.of(labels);
          let index = 0;
          while (index < bounds.length && value > (bounds[index] as number)) index++;
          entry.counts[index] = (entry.counts[index] as number) + 1;
          entry.sum += value;
        },
      };
    },
    forget: (label, value) => {
      for (const { declaration, all } of metrics) {
        const place = declaration.labels?.indexOf(label) ?? -1;
        if (place >= 0) for (const [key, { labels }] of all) if (labels[place] === value) all.delete(key);
      }
    },
    declared: () => metrics.map(({ declaration, type }) => ({ ...declaration, type })),
    render: () =>
      metrics
        .flatMap(({ declaration, type, lines }) => [`# HELP ${declaration.name} ${declaration.help}`, `# TYPE ${declaration.name} ${type}`, ...lines()])
        .concat('')
        .join('\n'),
  };
}

function labelText(names: readonly string[] = [], values: readonly string[]): string {
  if (names.length === 0) return '';
  return `{${names.map((name, index) => `${name}="${escaped(values[index] ?? '')}"`).join(',')}}`;
}

function escaped(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

function numberText(value: number): string {
  if (value === Infinity) return '+Inf';
  if (value === -Infinity) return '-Inf';
  return String(value);
}
