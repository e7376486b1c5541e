// Prints how far the accounts of energy are off the meter, on real processes: emulated replicas, agent, gateway, load.
//   npm run -s bench:accounts -- --duration 30 --json
// Or what keeping them costs of the scheduler's time:
//   npm run -s bench:accounts -- --cost
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { measureAccountCost } from './account-cost.ts';
import { measureAccountError } from './account-error.ts';

const { values } = parseArgs({
  options: {
    duration: { type: 'string', default: '30' },
    rate: { type: 'string', default: '4' },
    replicas: { type: 'string', default: '2' },
    policy: { type: 'string', default: 'paceline' },
    profile: { type: 'string', default: resolve(import.meta.dirname, '../../config/profiles/llama-3.1-70b.h100-tp4.json') },
    seed: { type: 'string', default: '1' },
    json: { type: 'boolean', default: false },
    cost: { type: 'boolean', default: false },
  },
});
if (values.cost) {
  const costs = [16, 64, 256, 1024].map((inFlight) => measureAccountCost(values.profile, inFlight));
  if (values.json) process.stdout.write(`${JSON.stringify(costs)}\n`);
  else {
    process.stdout.write('in flight   request without accounts   accounts add   one reading, four a second\n');
    for (const { inFlight, requestUs, accountsUs, readingUs } of costs) process.stdout.write(`${String(inFlight).padStart(9)} ${requestUs.toFixed(1).padStart(21)} µs ${accountsUs.toFixed(2).padStart(14)} µs ${readingUs.toFixed(1).padStart(14)} µs\n`);
  }
  process.exit(0);
}
const result = await measureAccountError({ profile: values.profile, replicas: Number(values.replicas), policy: values.policy, ratePerS: Number(values.rate), durationS: Number(values.duration), seed: Number(values.seed) });
if (values.json) process.stdout.write(`${JSON.stringify(result)}\n`);
else {
  const { accountErrorPct, meterUncertaintyPct, rowsErrorPct, requests, meterJ, requestsJ, idleJ, othersJ, unapportionedJ, maximumClockJ } = result;
  const row = (name: string, energyJ: number): string => `${name.padEnd(28)} ${energyJ.toFixed(0).padStart(9)} J  ${((100 * energyJ) / meterJ).toFixed(1).padStart(5)} %`;
  process.stdout.write(
    [
      `${requests} requests, ${values.replicas} emulated replicas, policy ${values.policy}, agent: ${result.agent}`,
      row('meter', meterJ),
      row('requests', requestsJ),
      row('idle', idleJ),
      row('others on the replicas', othersJ),
      row('told too late to apportion', unapportionedJ),
      row('maximum clock (estimate)', maximumClockJ),
      `account error                ${accountErrorPct.toFixed(3)} % of the meter (want at most 1), which is known to within ${meterUncertaintyPct.toFixed(3)} %`,
      `what requests were charged   ${rowsErrorPct.toFixed(3)} % off what replicas say they took`,
      '',
    ].join('\n'),
  );
}
if (result.accountErrorPct > 1) process.exitCode = 1;
