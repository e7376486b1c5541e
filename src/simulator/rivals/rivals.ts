// The closed list of rivals, by the names that `paceline simulate --policy` takes.
import { createAgft } from './agft.ts';
import { createDriver } from './driver.ts';
import { createDynamoLlm } from './dynamollm.ts';
import { createGreenLlm } from './greenllm.ts';
import { createOndemand } from './ondemand.ts';
import type { RivalFactory } from './rival.ts';
import { withinMargin } from './slo-limits.ts';
import { createThrottLlem } from './throttllem.ts';
import { createVoltanaLlm } from './voltanallm.ts';

export type RivalName = 'driver' | 'ondemand' | 'voltanallm' | 'throttllem' | 'dynamollm' | 'greenllm' | 'agft';

/** Those that know SLOs see them tightened by their margin; to the others it means what their files say. */
export const RIVALS: Readonly<Record<RivalName, RivalFactory>> = {
  driver: createDriver,
  ondemand: createOndemand,
  voltanallm: withinMargin(createVoltanaLlm),
  throttllem: withinMargin(createThrottLlem, 'planned'),
  dynamollm: withinMargin(createDynamoLlm),
  greenllm: withinMargin(createGreenLlm),
  agft: createAgft,
};

export function isRivalName(name: string): name is RivalName {
  return Object.hasOwn(RIVALS, name);
}
