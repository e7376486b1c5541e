// The unit in which workloads say which prompts begin alike.

/** Tokens of one id of `prefixBlocks`; Mooncake's traces are hashed by this many. The last block of a prompt may be shorter. */
export const PREFIX_BLOCK_TOKENS = 512;
