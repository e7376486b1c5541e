// Puts one model server to sleep and wakes it, by vLLM's routes: POST /sleep, POST /wake_up, GET /is_sleeping. Which servers sleep is
// decided elsewhere; here it is done, one call at a time, and told what became of it.
import type { ReplicaClient } from './replica-client.ts';

export interface ReplicaRest {
  /** What the server should do; the latest wins over one that has not begun. */
  goTo(to: 'asleep' | 'awake'): void;
  /** Asks the server whether it sleeps, which it may since before us; resolves when that has been told. */
  look(): Promise<void>;
  /** Wakes what was put to sleep here, and waits for it no longer than `CLOSE_MS_MAX`. */
  close(): Promise<void>;
}

export interface ReplicaRestOptions {
  readonly client: Pick<ReplicaClient, 'get' | 'post'>;
  readonly sleepMs: number;
  readonly wakeMs: number;
  /** For a question. */
  readonly timeoutMs: number;
  /** `cannot`: it has no sleep mode, and is not asked again. `lost`: it did not wake. */
  readonly onState: (state: 'awake' | 'asleep' | 'cannot' | 'lost', why: string) => void;
}

const ANSWER_BYTES_MAX = 65_536;

/** A call may take so many times what it should, and this much more: as long as the scheduler waits. */
const PATIENCE = { times: 3, moreMs: 5_000 };

/** A gateway that ends is not kept for longer than this by a server that does not wake. */
export const CLOSE_MS_MAX = 10_000;

/**
 * vLLM parks what comes while it sleeps, and from 0.17 on ends what runs unless `mode=wait` says otherwise (older ones do not know the
 * word and crashed under work): so it is put to sleep only without any, and says `wait` for what others may have there.
 */
const SLEEP_PATH = '/sleep?level=1&mode=wait';

export function createReplicaRest({ client, sleepMs, wakeMs, timeoutMs, onState }: ReplicaRestOptions): ReplicaRest {
  let able = true;
  let closed = false;
  /** By our own hand. */
  let putToSleep = false;
  let wanted: 'asleep' | 'awake' | null = null;
  let underWay: Promise<void> | null = null;

  function goTo(to: 'asleep' | 'awake'): void {
    if (!able || closed) return;
    wanted = to;
    underWay ??= work().finally(() => {
      underWay = null;
    });
  }

  async function work(): Promise<void> {
    for (let to = wanted; to !== null; to = wanted) {
      wanted = null;
      if (to === 'asleep') await sleep();
      else await wake();
    }
  }

  async function sleep(): Promise<void> {
    // From the call on: one that fails halfway may have put it to sleep all the same.
    putToSleep = true;
    const trouble = await troubleOf(SLEEP_PATH, sleepMs);
    if (trouble === null) onState('asleep', 'it was put to sleep');
    else cannot(trouble.message);
  }

  async function wake(): Promise<void> {
    const trouble = await troubleOf('/wake_up', wakeMs);
    if (trouble === null) {
      putToSleep = false;
      onState('awake', 'it was woken');
    } else if (trouble.status === 404) cannot(trouble.message);
    else onState('lost', trouble.message);
  }

  async function troubleOf(path: string, takesMs: number): Promise<{ readonly status: number | null; readonly message: string } | null> {
    try {
      const { statusCode } = await client.post(path, { timeoutMs: PATIENCE.times * takesMs + PATIENCE.moreMs, bytesMax: ANSWER_BYTES_MAX });
      return statusCode < 300 ? null : { status: statusCode, message: `POST ${path} answered ${statusCode}` };
    } catch (error) {
      return { status: null, message: `POST ${path}: ${error instanceof Error ? error.message : String(error)}` };
    }
  }

  function cannot(why: string): void {
    able = false;
    wanted = null;
    onState('cannot', why);
    // A call that was refused did nothing; one that broke off may have, and a server that sleeps serves nobody.
    if (putToSleep) void client.post('/wake_up', { timeoutMs: PATIENCE.times * wakeMs + PATIENCE.moreMs, bytesMax: ANSWER_BYTES_MAX }).catch(() => {});
    putToSleep = false;
  }

  return {
    goTo,
    async look() {
      if (!able || closed) return;
      try {
        const { statusCode, body } = await client.get('/is_sleeping', { timeoutMs, bytesMax: ANSWER_BYTES_MAX });
        if (closed) return;
        if (statusCode >= 300) return cannot(`GET /is_sleeping answered ${statusCode}`);
        onState(isSleeping(body.toString('utf8')) ? 'asleep' : 'awake', 'it says so');
      } catch {
        // Its probes tell whether it is there at all; until it says that it sleeps it is taken for awake.
      }
    },
    async close() {
      closed = true;
      wanted = null;
      await underWay;
      if (!putToSleep) return;
      try {
        await client.post('/wake_up', { timeoutMs: CLOSE_MS_MAX, bytesMax: ANSWER_BYTES_MAX });
      } catch {
        // Whoever serves it next finds it asleep, and wakes it.
      }
    },
  };
}

function isSleeping(text: string): boolean {
  try {
    const answer: unknown = JSON.parse(text);
    return typeof answer === 'object' && answer !== null && 'is_sleeping' in answer && answer.is_sleeping === true;
  } catch {
    return false;
  }
}
