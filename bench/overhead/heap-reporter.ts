// Loaded into the gateway by `--import` for the soak: at SIGUSR2 it collects garbage and writes the heap in use, in KiB, after the
// number of the report to the file that HEAP_REPORT names. A heap that is not collected first says nothing about leaks.
import { renameSync, writeFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const path = process.env['HEAP_REPORT'];
if (path === undefined) throw new Error('HEAP_REPORT is not set');
setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
let reports = 0;
process.on('SIGUSR2', () => {
  collect();
  reports += 1;
  writeFileSync(`${path}.new`, `${reports} ${Math.round(process.memoryUsage().heapUsed / 1024)}\n`);
  renameSync(`${path}.new`, path);
});
