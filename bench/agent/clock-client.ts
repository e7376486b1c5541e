// A process that holds devices down through the gateway's own clock control, to be killed: `KIND SOCKET DEVICES CLOCK_MHZ HOLD_MS`.
import { clockNode, pointOf } from './clock-node.ts';
import { createClockControl } from '../../src/agent/clock-control.ts';
import type { ReplicaId } from '../../src/core/job.ts';

const [kind = '', socketPath = '', devices = '', clockMhz = '', holdMs = ''] = process.argv.slice(2);
const replicaId = 'r0' as ReplicaId;
const control = createClockControl({
  nodes: [clockNode(kind === 'zeusd' ? 'zeusd' : 'paceline', socketPath, devices.split(','))],
  holder: 'bench',
  now: () => performance.now(),
  onControl: () => {},
  onWarning: () => {},
});
// As often as a gateway: once a control period.
setInterval(() => control.demand({ replicaId, point: pointOf(Number(clockMhz)), holdMs: Number(holdMs), change: 'renew' }), 100);
