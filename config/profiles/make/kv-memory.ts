// How many tokens of context fit: the arithmetic that an engine does when it starts.

/** Share of device memory that vLLM takes by default (`--gpu-memory-utilization`). */
const MEMORY_SHARE = 0.9;
/** vLLM's blocks hold 16 tokens; the pool is a whole number of them. */
const BLOCK_TOKENS = 16;
const GIB = 2 ** 30;

export interface KvMemory {
  readonly devices: number;
  readonly deviceMemoryGib: number;
  /** Activations of the largest batch, CUDA graphs and workspaces; estimated, per device. */
  readonly otherGib: number;
  readonly parameters: number;
  readonly bytesPerParameter: number;
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDimension: number;
  readonly bytesPerElement: number;
}

/** Tokens of KV cache that a device group holds beside the weights. */
export function kvTokensFitting(memory: KvMemory): number {
  const forEngineBytes = memory.devices * (memory.deviceMemoryGib * MEMORY_SHARE - memory.otherGib) * GIB;
  const forKvBytes = forEngineBytes - memory.parameters * memory.bytesPerParameter;
  return Math.floor(forKvBytes / kvBytesPerToken(memory) / BLOCK_TOKENS) * BLOCK_TOKENS;
}

/** Keys and values of one token in all layers, over the whole group. */
export function kvBytesPerToken(memory: Pick<KvMemory, 'layers' | 'kvHeads' | 'headDimension' | 'bytesPerElement'>): number {
  return 2 * memory.layers * memory.kvHeads * memory.headDimension * memory.bytesPerElement;
}
