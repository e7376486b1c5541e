// The shape of the configuration file: every key, its default and what it is for. The published JSON Schema is made
// of it, so the descriptions are what an editor shows. Relations between keys are checked in `config.ts`.
import { z } from 'zod';
import { CONTROL_PERIOD_MS, QUEUED_MAX_DEFAULT } from '../core/limits.ts';
import { WORKFLOWS_MAX } from '../core/workflow.ts';

/** Where requests come in, where the file says nothing. */
export const LISTEN_DEFAULT = { host: '127.0.0.1', port: 8080 };

/** Of one tenant, open at once. */
export const WORKFLOWS_MAX_DEFAULT = 1_000;

const DAY_MS = 86_400_000;

/** Classes that exist without being configured: an SLO given by headers alone, and none at all. */
export const BUILT_IN_CLASSES = ['custom', 'best-effort'] as const;

const name = z.string().min(1).max(200);
const label = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, 'want 1 to 64 letters, digits, dots, dashes or underscores');
const port = z.int().min(0).max(65_535).describe('0: any free port');
const objectiveMs = z.number().positive().max(DAY_MS);
const everyMs = z.int().min(50).max(3_600_000);
const timeoutMs = z.int().min(1).max(DAY_MS);

const bound = z.strictObject({ min: objectiveMs.optional(), max: objectiveMs.optional() });

const sloClass = z
  .strictObject({
    ttftMs: objectiveMs.optional().describe('time to first token, from arrival at the gateway'),
    tpotMs: objectiveMs.optional().describe('mean time per output token after the first'),
    e2eMs: objectiveMs.optional().describe('the whole request'),
    worth: z.number().min(0.01).max(1_000).default(1).describe('what meeting them counts for, relative to other classes, where a power budget leaves no room for all'),
  })
  .describe('latency objectives in milliseconds; any subset');

const tiers = z
  .partialRecord(z.enum(['auto', 'default', 'flex', 'priority', 'scale', 'fast', 'ultrafast']), label)
  .describe("the body's service_tier to the name of a class");

const learn = z
  .strictObject({
    clocksMhz: z.array(z.int().min(1).max(100_000)).min(1).max(1_000).optional().describe("clocks that its devices can be set to; default: what the agent says of them at the start"),
    powerLimitW: z.number().min(1).max(100_000).optional().describe('board limit of one device; default: what the agent says, else 400. Only proportions are made of it'),
    maxBatchTokens: z.int().min(1).max(1_000_000).default(2_048).describe("as the server was started (vLLM's --max-num-batched-tokens)"),
    maxSequences: z.int().min(1).max(100_000).default(128).describe("as the server was started (vLLM's --max-num-seqs)"),
    kvTokens: z.int().min(1).max(1_000_000_000).default(100_000).describe('tokens that its KV cache holds, as it says at its start'),
  })
  .describe('what is known of a replica that has no profile');

const replica = z.strictObject({
  id: label,
  url: z.string().regex(/^https?:\/\/[^/?#@\s]+\/?$/, 'want an origin such as http://10.0.0.7:8000, without a path'),
  models: z
    .union([z.array(name).min(1), z.record(name, name)], { error: 'want a list of model names, or a map from name to the name the model server knows' })
    .describe('names the clients use; as a map, each with the name to send upstream'),
  profile: z
    .union([z.string().min(1), z.strictObject({ learn })], { error: 'want the path of a profile, or { learn: {} } where there is none' })
    .describe('path of the profile, relative to this file; or `learn`: there is none, and it is learnt while serving, from the fastest clock down'),
  settings: z
    .record(name, z.union([z.number(), z.string()]))
    .default({})
    .describe("of a profile of several configurations, the settings of the knobs that only a restart changes which this server runs with, such as { batchTokens: 2048 }"),
  devices: z
    .union([z.array(name), z.strictObject({ prefill: z.array(name).min(1), decode: z.array(name).min(1) })], { error: 'want a list of devices, or { prefill: [...], decode: [...] } for a server that prefills on some and decodes on the others' })
    .default([])
    .describe("the agent's ids of the devices it runs on, which all move together; of a server that prefills on some and decodes on others, `prefill` and `decode`, each with a clock of its own"),
  agent: label.optional().describe('the name of the agent on its node; needed where there are several'),
  concurrencyMax: z.int().min(1).max(100_000).optional().describe("requests sent at once; default: the profile's maxSequences"),
  sleep: z
    .strictObject({
      level: z.literal(1).default(1).describe("vLLM's: 1 keeps the weights in the host's memory; from 2 nothing comes back by itself"),
      powerW: z.number().min(0).max(1e6).optional().describe('of all its devices together while it sleeps'),
      sleepMs: z.number().min(0).max(3_600_000).optional().describe('from the call until they draw that'),
      wakeMs: z.number().min(0).max(3_600_000).optional().describe('from the call until it serves again'),
      wakeEnergyJ: z.number().min(0).max(1e9).optional().describe('of all its devices together for waking; default: idling at the fastest point meanwhile'),
    })
    .optional()
    .describe("its server may be put to sleep while the others are enough (vLLM: VLLM_SERVER_DEV_MODE=1 and --enable-sleep-mode); what is not said here says the profile's `sleep`. Not with a `store`: another gateway would send to a server that sleeps"),
  apiKeyEnv: z.string().min(1).optional().describe('environment variable that holds the key the model server wants'),
  asksUsage: z
    .boolean()
    .default(true)
    .describe('ask it for the usage of every stream, and take the event that tells it out where the client did not ask; false for servers that know no stream_options'),
  priority: z
    .enum(['lower-first', 'higher-first'])
    .optional()
    .describe("its engine orders its queue by the body's `priority`: each request then gets its deadline as one, in place of the client's own; vLLM with --scheduling-policy priority: lower-first, SGLang with --enable-priority-scheduling: higher-first"),
});

const admission = {
  infeasible: z
    .enum(['refuse', 'best-effort'])
    .optional()
    .describe("a request that cannot meet its deadlines even at full speed: 'refuse' answers 429 with a time to come back, 'best-effort' serves it when others leave room"),
  queueTimeoutMs: timeoutMs.optional().describe('longest time in the queue, from arrival, whatever the deadline; then 429'),
  keepAliveMs: z
    .int()
    .min(1_000)
    .max(600_000)
    .optional()
    .describe('a stream that waits gets headers and a comment after so long, and every so often: for proxies that cut idle connections. An error can then only be told as an event, no more as a status'),
};

const tenant = z.strictObject({
  name: label,
  apiKeySha256: z
    .array(z.string().regex(/^[0-9a-f]{64}$/, 'want the 64 lower-case hex digits of a SHA-256'))
    .default([])
    .describe('its keys, beside those of `keysFile`'),
  weight: z.number().min(0.01).max(1_000).default(1).describe('its share of the fleet, relative to the weights of the others, where all want more than there is'),
  admission: z.strictObject(admission).prefault({}).describe('overrides the common `admission`, key by key'),
  limits: z
    .strictObject({
      requestsPerMinute: z.int().min(1).max(10_000_000).optional(),
      tokensPerMinute: z.int().min(1).max(10_000_000_000).optional().describe('of prompts and answers; what an answer may take is reserved, and what it did not take given back'),
      concurrencyMax: z.int().min(1).max(1_000_000).optional().describe('requests at once, those that wait included'),
      workflowsMax: z.int().min(0).max(WORKFLOWS_MAX).default(WORKFLOWS_MAX_DEFAULT).describe('workflows open at once, of each gateway by itself; 0: it may have none'),
      scope: z.enum(['fleet', 'gateway']).default('fleet').describe("'gateway': of each gateway by itself, without asking the store"),
    })
    .prefault({})
    .describe('of all gateways together where there is a store; over them is 429'),
  energyBudget: z
    .strictObject({
      joulesPerDay: z.number().positive().max(1e12).describe('of the day in UTC, as the accounts of energy say that its requests took: metered where there is a meter'),
      atEnd: z.union([z.literal('refuse'), z.strictObject({ class: label })]).default('refuse').describe("'refuse': 429 until midnight UTC; a class: its requests get that one, whatever they ask for"),
    })
    .optional(),
  class: label.optional().describe('class of its requests that say nothing'),
  models: z.array(name).min(1).optional().describe('the only names of models it may use, and sees; an alias brings its model with it, by that name; default: all'),
  tiers: tiers.optional(),
  bounds: z
    .strictObject({ ttftMs: bound.optional(), tpotMs: bound.optional(), e2eMs: bound.optional() })
    .prefault({})
    .describe('what its requests may ask for in SLO headers; outside is refused'),
});

const agent = z.strictObject({
  kind: z.enum(['paceline', 'zeusd']).default('paceline').describe("'zeusd': the daemon of the Zeus project; it has no leases, see agent/README.md"),
  socket: z.string().min(1).optional().describe('path of its Unix socket, relative to this file'),
  url: z
    .string()
    .regex(/^http:\/\/(127\.\d{1,3}\.\d{1,3}\.\d{1,3}|localhost|\[::1\])(:\d{1,5})?\/?$/, 'want http:// and a loopback address, such as http://127.0.0.1:9501; a node elsewhere is reached through a tunnel, for the token is sent in the clear')
    .refine((url) => URL.canParse(url), 'want an address and a port that exist')
    .optional()
    .describe('instead of a socket: a port of this machine (an ssh tunnel, a sidecar)'),
  tokenFile: z.string().min(1).optional().describe('file with the bearer token for the url, relative to this file'),
  ttlMs: z.int().min(300).max(60_000).optional().describe('after this long without us the devices are back at default clocks; default 3000; not for zeusd'),
  watchdogMs: z.int().min(200).max(60_000).optional().describe('zeusd only: no GPU is slow for longer than this unless asked for again; default 2000'),
  lowestClockMhz: z.int().min(1).max(10_000).optional().describe('zeusd only: an idle GPU may go down to it; default: it stays at the demanded clock'),
});

const signal = {
  file: z.string().min(1).optional().describe('path, relative to this file; read again when it changes'),
  url: z
    .string()
    .regex(/^https?:\/\/[^/?#@\s]+([/?][^#\s]*)?$/, 'want http:// or https://, without a user or a fragment')
    .refine((url) => URL.canParse(url), 'want an address that exists')
    .optional()
    .describe('instead of a file: asked by GET; redirects are not followed'),
  tokenFile: z.string().min(1).optional().describe('file with the bearer token for the url, relative to this file'),
  everyMs: z.int().min(1_000).max(DAY_MS).optional().describe('how often the url is asked; default 60000'),
  timeoutMs: z.int().min(1).max(60_000).optional().describe('of one answer; default 10000'),
  staleAfterMs: z.int().min(1_000).max(7 * DAY_MS).default(900_000).describe('the last good series counts for so long while a newer one cannot be had'),
};
const watts = z.number().positive().max(1e9);

const budget = z.strictObject({
  name: label,
  watts: watts.optional().describe('what all that is under it may draw together'),
  schedule: z
    .strictObject({ ...signal, onStale: z.union([z.literal('hold'), z.strictObject({ watts })], { error: "want 'hold', or { watts: … }" }).default('hold').describe("when the series has run out or is too old: 'hold' its last value, or fall to these watts") })
    .optional()
    .describe('instead of watts: a series of them, docs/power.md has its form'),
  over: z
    .union([z.literal('fleet'), z.strictObject({ replicas: z.array(label).min(1) }), z.strictObject({ agents: z.array(label).min(1) })], { error: "want 'fleet', { replicas: [...] } or { agents: [...] }" })
    .default('fleet')
    .describe("what is under it: all replicas, some, or those of some nodes' agents"),
});

const redisNodes = z
  .array(z.string().regex(/^([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]+\]):\d{1,5}$/, 'want host:port, such as 10.0.0.7:6379'))
  .min(1)
  .max(32);

const lostWay = z.enum(['open', 'closed', 'local-share']);

const POLICY_WANTED = "want 'paceline', 'max-clock' or 'static:' and the id of an operating point";

export const configSchema = z.strictObject({
  listen: z
    .strictObject({
      host: z.string().min(1).optional().describe('default 127.0.0.1'),
      port: port.optional().describe('default 8080; 0: any free port'),
      socket: z.string().min(1).optional().describe('path of a Unix socket, relative to this file, instead of host and port'),
      socketMode: z
        .string()
        .regex(/^0?[0-7]{3}$/, "want three octal digits in quotes, such as '0660'")
        .optional()
        .describe("who may use the socket, octal; default '0660'"),
      tls: z
        .strictObject({
          certFile: z.string().min(1).describe('PEM: the certificate, then those it is signed with; relative to this file'),
          keyFile: z.string().min(1).describe('PEM: its private key, without a passphrase; relative to this file'),
        })
        .optional()
        .describe('HTTPS; both files are read again when they change and on SIGHUP'),
      http2: z.boolean().default(true).describe('HTTP/2 beside HTTP/1.1: by ALPN with TLS, by prior knowledge without'),
    })
    .prefault({})
    .describe('where requests come in'),
  admin: z
    .strictObject({
      host: z.string().min(1).default('127.0.0.1').describe('others than loopback want a key'),
      port: port.default(8081),
      keyEnv: z.string().min(1).optional().describe("environment variable that holds the operators' key"),
      keySha256: z
        .array(z.string().regex(/^[0-9a-f]{64}$/, 'want the 64 lower-case hex digits of a SHA-256'))
        .min(1)
        .max(16)
        .optional()
        .describe('or the SHA-256 of keys, several while one is replaced'),
      metricsOpen: z.boolean().default(false).describe('/metrics wants no key'),
    })
    .prefault({})
    .describe('metrics, health and status; never reachable through the other listener'),
  probes: z
    .strictObject({
      host: z.string().min(1).default('127.0.0.1'),
      port: port.default(8082),
      stuckMs: z.int().min(1_000).max(3_600_000).default(30_000).describe('/livez fails after so long without any progress of the event loop; a loop that is late under load still serves'),
    })
    .optional()
    .describe('/livez, /readyz and /startupz on a port of their own, answered by a thread of its own; without it there are only those of `admin`'),
  replicas: z.array(replica).min(1),
  agent: agent.optional().describe('the agent on this node; without one the gateway proxies at default clocks'),
  agents: z.record(label, agent).optional().describe('instead of `agent`: one per node, by name'),
  models: z
    .record(
      name,
      z.strictObject({
        aliasOf: name.optional().describe('a model of the replicas; requests for this name are requests for that'),
        fallbacks: z.array(name).min(1).max(10).optional().describe('where no replica of this model is up, the first of these that has one; the answer names it in x-paceline-model'),
      }),
    )
    .default({})
    .describe('further names, and what stands in for a model; by name, each with either aliasOf or fallbacks'),
  upstream: z
    .strictObject({
      retriesMax: z.int().min(0).max(20).default(2).describe('refusals (429, 503) of a request after which another replica is asked; then, or where there is none, the client gets the refusal as it is'),
    })
    .prefault({}),
  slo: z
    .strictObject({
      default: label.optional(),
      models: z.record(name, label).default({}),
      classes: z.record(label, sloClass).default({}),
      tiers: tiers.default({}),
    })
    .prefault({})
    .describe('precedence: request header, service_tier, tenant, model, default'),
  keysFile: z.string().min(1).optional().describe('keys of the tenants, made by `paceline keys`, relative to this file; read again when it changes'),
  tenants: z.array(tenant).default([]).describe("none: open access, everybody is 'anonymous'"),
  admission: z.strictObject({ ...admission, infeasible: admission.infeasible.unwrap().default('best-effort').describe(admission.infeasible.description ?? '') }).prefault({}),
  planner: z
    .strictObject({
      policy: z.string().regex(/^(paceline|max-clock|static:.+)$/, POLICY_WANTED).default('paceline'),
      routing: z
        .enum(['energy', 'least-loaded'])
        .optional()
        .describe("'energy': where the request costs least; 'least-loaded': fewest requests; default: energy under paceline, else least-loaded"),
      prefixAffinity: z
        .enum(['off', 'per-tenant', 'across-tenants'])
        .default('per-tenant')
        .describe("whether a prompt is reckoned shorter where the same beginning was sent before, under routing by energy; 'across-tenants': also by another tenant"),
      attainmentTarget: z.number().gt(0).lt(1).default(0.99),
      batchCap: z
        .enum(['configured', 'plan', 'learn'])
        .default('configured')
        .describe("requests on a replica at once: 'configured', its concurrencyMax; 'plan', no more than its profile says pays (memory for contexts, TPOT, energy per token); 'learn', tried out while serving, by metered joules per token, and never kept where deadlines are missed"),
      awakeMin: z.int().min(0).max(10_000).default(1).describe('of the replicas of a model that may sleep, so many are awake with the others at least; 0: the first request after a silence waits for one to wake'),
      controlPeriodMs: z.int().min(CONTROL_PERIOD_MS.min).max(CONTROL_PERIOD_MS.max).default(CONTROL_PERIOD_MS.default),
    })
    .prefault({}),
  store: z
    .strictObject({
      redisUrl: z.string().min(1).optional().describe('redis://host:port; with a password use redisUrlEnv'),
      redisUrlEnv: z.string().min(1).optional().describe('environment variable that holds the URL'),
      sentinel: z
        .strictObject({
          name: name.describe('of the group of servers that they watch'),
          nodes: redisNodes,
          passwordEnv: z.string().min(1).optional().describe("environment variable that holds the Sentinels' own password"),
        })
        .optional()
        .describe('instead of a URL: Sentinels that know which server is the one to write to'),
      cluster: z.strictObject({ nodes: redisNodes }).optional().describe('instead of a URL: some nodes of a Redis Cluster'),
      usernameEnv: z.string().min(1).optional().describe('with sentinel or cluster; a URL has it inside'),
      passwordEnv: z.string().min(1).optional().describe('with sentinel or cluster; a URL has it inside'),
      tls: z.boolean().default(false).describe('with sentinel or cluster; a URL says rediss://'),
      caFile: z.string().min(1).optional().describe("PEM: who signed the server's certificate, relative to this file; default: whom Node trusts"),
      fleet: label.default('default').describe('gateways of one name share their limits, and what they have sent where'),
      timeoutMs: z.int().min(1).max(1_000).default(15).describe('what a request of a tenant with limits waits for Redis at most, so that it goes on within 20 ms; then what `whenLost` says'),
      whenLost: z
        .union([lostWay, z.strictObject({ requests: lostWay.default('local-share'), tokens: lostWay.default('local-share'), concurrency: lostWay.default('local-share'), energy: lostWay.default('local-share') })])
        .default('local-share')
        .describe("limits without an answer of Redis, all or each: 'open' lets everything through, 'closed' nothing, 'local-share' each gateway its part"),
      gatewaysExpected: z.int().min(1).max(64).default(1).describe('how many gateways share a limit at least, where Redis is lost; it tells how many there are as long as it is there'),
    })
    .refine(({ redisUrl, redisUrlEnv, sentinel, cluster }) => [redisUrl, redisUrlEnv, sentinel, cluster].filter((way) => way !== undefined).length === 1, 'want either redisUrl or redisUrlEnv, or sentinel, or cluster; one of them')
    .optional()
    .describe('Redis, where several gateways stand in front of the same replicas; only requests of tenants with limits wait for it, briefly'),
  batch: z
    .strictObject({
      store: z
        .union([z.literal('redis'), z.strictObject({ sqlite: z.string().min(1).describe('path of the file, relative to this one; made where it is missing') })])
        .default({ sqlite: 'paceline-batches.sqlite' })
        .describe("a file that gateways of one machine may share, or 'redis', that of `store`, for gateways of several"),
      concurrencyMax: z.int().min(1).max(10_000).default(64).describe('lines of batches in flight from this gateway, however idle the fleet is or however near a window ends'),
      requestsMax: z.int().min(1).max(1_000_000).default(50_000).describe('lines of one batch; more, and it fails'),
      fileBytesMax: z.int().min(1_024).max(1_073_741_824).default(209_715_200).describe('of one file; more is 413'),
      filesBytesMax: z.int().min(1_024).max(1_099_511_627_776).default(10_737_418_240).describe('of all files of all tenants; more is 429'),
      filesMax: z.int().min(1).max(1_000_000).default(1_000).describe('of one tenant, its output files not refused; more is 429'),
      batchesMax: z.int().min(1).max(10_000).default(100).describe('of one tenant in progress; more is 429'),
      retentionDays: z.int().min(1).max(365).default(30).describe('files and batches are deleted after it'),
    })
    .optional()
    .describe("OpenAI's /v1/files and /v1/batches: lines are sent while others leave room, and in time for the window's end; without it there are none"),
  passThrough: z
    .array(z.string().max(200).regex(/^(\/[A-Za-z0-9._~-]+)+(\/\*)?$/, 'want a path such as /v1/files, or /v1/files/* for all below it'))
    .max(100)
    .default([])
    .describe('further paths that go on to the model servers as they come, with GET, HEAD, POST, PUT, PATCH or DELETE'),
  limits: z
    .strictObject({
      bodyBytesMax: z.int().min(1_024).max(1_073_741_824).default(16_777_216).describe("of a request's body; more is 413"),
      headerBytesMax: z.int().min(4_096).max(1_048_576).default(32_768).describe("of a request's target, header names and values together; more is 431"),
      headersMax: z.int().min(16).max(2_000).default(128).describe('header fields of a request; more is 431'),
      // More than the 8,192 streams of the overhead bench; a connection without a request is some 10 KB.
      connectionsMax: z.int().min(1).max(1_000_000).default(16_384).describe('open at once; further ones get 503, or are closed where TLS comes first or too many come at once'),
      // An answer takes seconds to minutes: at the usual 100 a proxy with few connections would queue before it reaches our queue.
      streamsPerConnectionMax: z.int().min(1).max(100_000).default(1_000).describe('requests at once on one HTTP/2 connection; further ones are refused unprocessed (REFUSED_STREAM)'),
      queuedMax: z.int().min(0).max(1_000_000).default(QUEUED_MAX_DEFAULT).describe('requests that may wait here for a replica'),
    })
    .prefault({}),
  timeouts: z
    .strictObject({
      connectMs: timeoutMs.default(2_000),
      // Prefill and decode wait differently: one stall timer for both aborts long prompts or keeps dead streams.
      firstByteMs: timeoutMs.default(1_800_000).describe("until the model server's answer begins; without streaming that is the whole generation"),
      stallMs: timeoutMs.default(120_000).describe('between two pieces of an answer, on either side'),
      headersMs: timeoutMs.default(60_000).describe("a request's headers, from the first byte or the opening of the connection; more is 408"),
      requestMs: timeoutMs.default(300_000).describe('a whole request with its body; more is 408. It does not bound the answer'),
      // Longer than load balancers keep idle connections (60 s), so that they close first and never send into a closing one.
      keepAliveMs: timeoutMs.default(75_000).describe('a connection without a request is closed after it'),
      readinessLagMs: z.int().min(0).max(600_000).default(0).describe('at shutdown: not ready for so long, and serving still, before nothing more is accepted; what load balancers take to notice'),
      drainMs: z.int().min(0).max(3_600_000).default(30_000).describe('what requests in flight get at shutdown'),
    })
    .prefault({}),
  health: z
    .strictObject({
      everyMs: everyMs.default(1_000),
      timeoutMs: timeoutMs.default(2_000),
      failuresMax: z.int().min(1).max(100).default(3).describe('failed probes in a row until a replica counts as down'),
      breaker: z
        .strictObject({
          failuresMax: z.int().min(1).max(1_000).default(5),
          windowMs: z.int().min(100).max(600_000).default(10_000),
          openMs: z.int().min(10).max(600_000).default(5_000).describe('until one request at a time tries it again; longer, up to 8 times, where that fails'),
          silentMs: timeoutMs.default(30_000).describe('nothing came from a replica for so long, though a stream waits for it: opens at once; want longer than the longest prompt takes'),
        })
        .prefault({})
        .describe('so many failures of requests within a window (connections that break, timeouts, 500, 502, 504, no HTTP), at least a quarter of what came back, and a replica gets none while others serve its model; 429 and an overloaded 503 are no failures'),
      slowStartMs: z.int().min(0).max(3_600_000).default(10_000).describe('a replica that comes back gets a share of its concurrency that grows over this long; 0: all at once'),
    })
    .prefault({}),
  accounts: z
    .strictObject({
      meter: z.enum(['agent', 'off']).default('agent').describe("'agent': the energy counters of the agents' devices are read; 'off': what requests take is modelled by the profiles alone"),
      readEveryMs: z.int().min(100).max(10_000).default(250).describe("while requests are under way on a node; a counter ticks about every 100 ms"),
      file: z.string().min(1).optional().describe('SQLite file of hourly accounts, relative to this file, for `paceline report`; each gateway its own. Without it nothing outlives the process'),
      flushEveryMs: z.int().min(1_000).max(3_600_000).default(10_000).describe('how often it is written; a crash loses no more than that'),
      retentionDays: z.int().min(1).max(3_650).default(400).describe('hours that are older are deleted'),
      pricePerKwh: z.number().min(0).max(1_000).optional().describe('of electricity, in `currency`; reports then tell a cost, an estimate'),
      currency: z.string().regex(/^[A-Za-z]{1,8}$/, 'want a label of letters, such as EUR').default('EUR').describe('a label'),
      carbonGPerKwh: z.number().min(0).max(10_000).optional().describe('intensity of the electricity, grams of CO2 equivalent; reports then tell emissions, an estimate'),
      pue: z.number().min(1).max(5).default(1).describe("power usage effectiveness of the site: what its meter shows over what its devices take; cost and carbon are multiplied by it"),
    })
    .prefault({})
    .describe('energy by request, tenant, model and class; all of it estimates, for devices are shared'),
  power: z
    .strictObject({
      budgets: z.array(budget).max(64).default([]).describe('a replica may be under several: of its node, its rack, the fleet'),
      prices: z.strictObject(signal).optional().describe('a series of what energy costs, in money or in carbon; only ratios count. Work that has the slack for it waits for its cheap hours'),
    })
    .optional()
    .describe('what the devices may draw, and when energy is cheap; docs/power.md'),
  logging: z
    .strictObject({
      level: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
      requests: z.boolean().default(false).describe('a line for each request, at level info: who, what model, where to, how long; nothing of what was asked or answered'),
    })
    .prefault({}),
});

export type RawAgent = z.output<typeof agent>;
export type RawConfig = z.output<typeof configSchema>;

/** The JSON Schema that `config/schemas/config.schema.json` holds. */
export function configJsonSchema(): Record<string, unknown> {
  return { title: 'Paceline configuration', ...z.toJSONSchema(configSchema, { io: 'input' }) };
}
