// Holds the devices at one clock for as long as it is measured, by a lease like any gateway's: whatever becomes of this process, they are
// back at default clocks within the lease's time.
import { createAgentClient, type Lease } from '../agent/agent-client.ts';
import { type AgentAddress, AgentError } from '../agent/connection.ts';

export interface ClockHold {
  /** `null`: default clocks. Resolves when the agent has set it. Throws `AgentError` where it was not, or the lease is lost. */
  set(clockMhz: number | null): Promise<void>;
  /** Throws where the lease was lost since: what was measured then was measured at default clocks. */
  check(): void;
  /** Devices are at default clocks when it resolves, or nobody can be asked. */
  close(): Promise<void>;
}

const TTL_MS = 3_000;
const HOLD_MS = 2_000;
const RENEW_EVERY_MS = 500;

export async function holdClocks(address: AgentAddress, devices: readonly string[]): Promise<ClockHold> {
  const client = createAgentClient(address);
  let lost: string | null = null;
  let clockMhz: number | null = null;
  let seq = 0;
  let lease: Lease;
  try {
    lease = await client.lease({ holder: `paceline-profile-${process.pid}`, devices, ttlMs: TTL_MS }, () => {}, ({ why }) => {
      lost ??= why;
    });
  } catch (error) {
    await client.close();
    throw error;
  }

  async function put(): Promise<void> {
    const results = await client.putTargets(lease, ++seq, [{ devices, clock_mhz: clockMhz, hold_ms: HOLD_MS }]);
    const refused = results.find(({ status }) => status !== 'applied' && status !== 'deferred');
    if (refused !== undefined) throw new AgentError(`the agent did not set ${refused.device} to ${clockMhz ?? 'its default'}${clockMhz === null ? '' : ' MHz'}: ${refused.status}`, null);
    const other = results.find(({ target_mhz: targetMhz }) => clockMhz !== null && targetMhz != null && targetMhz > clockMhz * 1.02);
    if (other !== undefined) throw new AgentError(`${other.device} is held at ${other.target_mhz} MHz: somebody else drives it, too; stop its gateway, or drain the replica`, null);
  }

  // One at a time: a renewal that comes late must not overtake a change.
  let busy: Promise<void> = Promise.resolve();
  async function inTurn(action: () => Promise<void>): Promise<void> {
    const before = busy;
    const done = (async () => {
      await before;
      await action();
    })();
    busy = done.catch(() => {});
    await done;
  }
  let renewing = false;
  const timer = setInterval(() => {
    // An agent that hangs is asked once more when it has answered, and not at all once the lease is lost: what queued here would be waited for at the end.
    if (renewing || lost !== null) return;
    renewing = true;
    void inTurn(put)
      .catch((error: unknown) => {
        lost ??= error instanceof Error ? error.message : String(error);
      })
      .finally(() => {
        renewing = false;
      });
  }, RENEW_EVERY_MS);

  return {
    set: (wanted) =>
      inTurn(async () => {
        clockMhz = wanted;
        await put();
      }),
    check() {
      if (lost !== null) throw new AgentError(`the lease was lost: ${lost}`, null);
    },
    close: async () => {
      clearInterval(timer);
      await busy;
      await client.release(lease).catch(() => {});
      await client.close();
    },
  };
}
