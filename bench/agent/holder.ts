// A client that is a process of its own, to be killed and stopped: slows its devices down, says so, and renews every 50 ms.
// argv: socket, devices (commas), TTL in ms, hold in ms.
import { connect, lease } from './thin-client.ts';
import { SLOW_MHZ, sleep } from './rig.ts';

const [socketPath, devices, ttlMs, holdMs] = process.argv.slice(2) as [string, string, string, string];
const named = devices.split(',');
const held = await lease(socketPath, named, Number(ttlMs));
const connection = await connect(socketPath);
const targets = [{ devices: named, clock_mhz: SLOW_MHZ, hold_ms: Number(holdMs) }];
for (let seq = 0; ; seq++) {
  const answer = await connection.ask('PUT', `/v1/leases/${held.leaseId}/targets`, { epoch: held.epoch, seq, targets });
  if (answer.status !== 200) throw new Error(answer.body);
  if (seq === 0) process.stdout.write('holding\n');
  await sleep(50);
}
