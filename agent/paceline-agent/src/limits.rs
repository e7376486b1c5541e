//! Whatever can grow has a bound, and the bound has a reason. Relations between them are checked at compile time.

use std::time::Duration;

use crate::device::ControlName;

/// Gateways, a Prometheus, an operator or two, each with a few kept-alive connections.
pub const CONNECTIONS_MAX: usize = 128;

/// One principal's runaway client must leave connections for the others.
pub const CONNECTIONS_PER_PRINCIPAL_MAX: usize = 96;

/// TCP connections that have not shown a token yet. Every local process can open them, so they are few and short-lived.
pub const CONNECTIONS_UNPROVEN_MAX: usize = 16;

/// A PUT that names 64 devices, each in its own target, is under 8 KiB.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// Request lines and headers. Also bounds how many `device=` a query can hold.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// From a connection's last answer to the end of its next request's head; closes slow and forgotten connections.
pub const HEAD_READ_MAX: Duration = Duration::from_secs(60);

/// The same for a TCP connection until it has shown a token.
pub const HEAD_READ_UNPROVEN_MAX: Duration = Duration::from_secs(5);

/// From the head to the end of the body. A gateway on the same machine needs a millisecond.
pub const BODY_READ_MAX: Duration = Duration::from_secs(5);

/// One per gateway process is usual.
pub const LEASES_MAX: usize = 64;

/// One principal's gateways that start again and again must leave leases for the others.
pub const LEASES_PER_PRINCIPAL_MAX: usize = 48;
const _: () = assert!(LEASES_PER_PRINCIPAL_MAX < LEASES_MAX);

/// More devices than one node has.
pub const LEASE_DEVICES_MAX: usize = 64;

/// As many groups as a lease can have devices.
pub const TARGETS_MAX: usize = LEASE_DEVICES_MAX;

pub const HOLDER_CHARS_MAX: usize = 64;

pub const TTL_MS_MIN: u64 = 100;
pub const TTL_MS_MAX: u64 = 60_000;
pub const TTL_MS_DEFAULT: u64 = 3_000;

/// A slow-down that nobody repeats for this long is forgotten, not wanted.
pub const HOLD_MS_MAX: u64 = 60_000;

/// Far above any clock and any card, far below where sums overflow.
pub const CLOCK_MHZ_MAX: u64 = 100_000;
pub const POWER_LIMIT_MW_MAX: u64 = 100_000_000;

pub fn value_max(control: ControlName) -> u64 {
    match control {
        ControlName::Clock => CLOCK_MHZ_MAX,
        ControlName::PowerLimit => POWER_LIMIT_MW_MAX,
    }
}

/// Counts that JavaScript can hold exactly.
pub const SEQ_MAX: u64 = (1 << 53) - 1;

/// Changing a clock takes a call of 10 to 20 ms and has delayed collectives when done every 50 ms.
pub const LOWERING_INTERVAL_MS_DEFAULT: u64 = 200;
pub const LOWERING_INTERVAL_MS_MAX: u64 = 60_000;

/// Clock calls take 10 to 20 ms, outliers ten times that. Whoever takes longer does not answer.
pub const STUCK_AFTER: Duration = Duration::from_millis(500);

/// How long a PUT or DELETE waits for its devices. Longer than `STUCK_AFTER` twice over: a group whose one device is
/// stuck still sends its others to default, and that is worth waiting for.
pub const ANSWER_AFTER_MAX: Duration = Duration::from_millis(1_200);
const _: () = assert!(ANSWER_AFTER_MAX.as_millis() > 2 * STUCK_AFTER.as_millis());

/// How long a knob is left alone after somebody else was seen to set it. Then a client that asks again may have it.
pub const YIELD_FOR: Duration = Duration::from_secs(60);

/// A device that cannot be reset is tried again after 100 ms, 200 ms … 5 s.
pub const RESTORE_RETRY_FIRST: Duration = Duration::from_millis(100);
pub const RESTORE_RETRY_MAX: Duration = Duration::from_secs(5);

/// How long leaving may take. What is not at default by then is the sentinel's, which has the journal.
pub const SHUTDOWN_RESTORE_MAX: Duration = Duration::from_secs(2);

/// For the last lines of streams, once the devices are at default.
pub const SHUTDOWN_STREAMS_MAX: Duration = Duration::from_millis(200);

/// How long start waits for journaled devices before it serves; slower ones are retried, and shown in `/readyz`.
pub const START_RESTORE_MAX: Duration = Duration::from_millis(1_500);

/// One restore of all journaled devices by a process of its own (sentinel, ExecStopPost).
pub const RESTORE_ALL_MAX: Duration = Duration::from_secs(5);

/// A panicking worker's attempt to reset what it holds; the sentinel restores again afterwards.
pub const PANIC_RESTORE_MAX: Duration = Duration::from_millis(500);

pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);

pub const STREAM_PERIOD_MS_MIN: u64 = 10;
pub const STREAM_PERIOD_MS_MAX: u64 = 10_000;
pub const STREAM_PERIOD_MS_DEFAULT: u64 = 100;

/// Readings younger than this are shared, so that many readers cost a device no more than one.
pub const READING_FRESH: Duration = Duration::from_millis(5);

/// A device that takes longer to read is reported as not answering. Reading never delays setting.
pub const READING_WAIT_MAX: Duration = Duration::from_millis(250);

/// Call times kept per device for `switch.call_us_p50`.
pub const CALL_TIMES_MAX: usize = 256;

/// A change of clock that has not arrived by then is published as late. Measured ones take 2 to 200 ms.
pub const SETTLE_MAX: Duration = Duration::from_secs(1);

/// Looks at a clock that is on its way: a quarter of the time waited so far, within these.
pub const SETTLE_POLL_FIRST: Duration = Duration::from_millis(2);
pub const SETTLE_POLL_MAX: Duration = Duration::from_millis(100);

/// Looks at a control that is held down, for somebody else's hand.
pub const WATCH_EVERY: Duration = Duration::from_millis(250);

/// A device that runs above its ceiling this often in a row, over that long, is not held by us any more.
pub const FOREIGN_READINGS_MIN: u32 = 3;
pub const FOREIGN_SPAN_MIN: Duration = Duration::from_millis(300);

/// Pairs of settings whose settle times are kept per device, and times per pair.
pub const SETTLE_PAIRS_MAX: usize = 64;
pub const SETTLE_TIMES_MAX: usize = 32;

/// The policy of a large site is a few kilobytes.
pub const POLICY_BYTES_MAX: u64 = 256 * 1024;
pub const PRINCIPALS_MAX: usize = 256;
pub const POLICY_LIST_MAX: usize = 256;

/// A token is compared as a whole block of this size. 32 hexadecimal digits are 128 bits, beyond guessing.
pub const TOKEN_CHARS_MAX: usize = 256;
pub const TOKEN_CHARS_MIN: usize = 32;
pub const TOKEN_NAME_CHARS_MAX: usize = 64;
/// One per gateway of a node, twice that while they are being replaced.
pub const TOKENS_MAX: usize = 64;
pub const TOKEN_FILE_BYTES_MAX: u64 = 64 * 1024;
const _: () =
    assert!((TOKENS_MAX * (TOKEN_CHARS_MAX + TOKEN_NAME_CHARS_MAX + 2)) as u64 <= TOKEN_FILE_BYTES_MAX);

/// Refused tokens that are written to the audit one by one, and how often another one may be after that.
pub const TOKEN_REFUSALS_BURST: u32 = 10;
pub const TOKEN_REFUSAL_EVERY: Duration = Duration::from_secs(1);

/// What `check` waits for an answer, in milliseconds. Kubernetes' probes give it a second by default.
pub const CHECK_WAIT_MAX: u64 = 900;
/// `/readyz` with every device of a node pending and an error of the policy is a few kilobytes.
pub const CHECK_BYTES_MAX: u64 = 64 * 1024;
/// The exec driver: its file, and what one device of it may list.
pub const EXEC_CONFIG_BYTES_MAX: u64 = 256 * 1024;
pub const EXEC_DEVICES_MAX: usize = 64;
pub const EXEC_STEPS_MAX: usize = 1_024;
pub const EXEC_ARGS_MAX: usize = 64;
pub const EXEC_ENV_MAX: usize = 64;

/// From a command's start until it is killed, and how long it may take to die.
pub const EXEC_TIMEOUT_MS_MIN: u64 = 10;
pub const EXEC_TIMEOUT_MS_MAX: u64 = 2_000;
pub const EXEC_TERMINATED_MAX: Duration = Duration::from_millis(100);
pub const EXEC_KILLED_MAX: Duration = Duration::from_millis(200);
// Both controls of a device are put back one after the other, within one restore.
const _: () = assert!(
    RESTORE_ALL_MAX.as_millis()
        > 2 * (EXEC_TIMEOUT_MS_MAX as u128 + EXEC_TERMINATED_MAX.as_millis() + EXEC_KILLED_MAX.as_millis())
);

/// Kept of each of a command's two outputs; the rest is read and dropped, so that it does not wait for us.
pub const EXEC_OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Journal and epoch are written by the agent itself; anything larger is not theirs.
pub const STATE_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Epochs are reserved on disk in blocks, so that a grant seldom waits for the disk.
pub const EPOCH_BLOCK: u64 = 1_000;

/// Worker to sentinel, and the silence after which the worker is taken for hung, counted in polls rather than by the
/// clock: a machine that was paused must not look like a worker that was.
pub const WORKER_BEAT_EVERY: Duration = Duration::from_millis(500);
pub const WORKER_SILENT_POLLS_MAX: u32 = 6;

/// The worker's own bound on leaving, with room; then it is killed and the sentinel restores.
pub const WORKER_LEAVES_MAX: Duration = Duration::from_secs(4);
const _: () = assert!(
    WORKER_LEAVES_MAX.as_millis() > SHUTDOWN_RESTORE_MAX.as_millis() + SHUTDOWN_STREAMS_MAX.as_millis()
);

/// Crashes within `RESTARTS_WITHIN` before the sentinel gives up and leaves the decision to systemd.
pub const RESTARTS_MAX: usize = 5;
pub const RESTARTS_WITHIN: Duration = Duration::from_secs(60);
pub const RESTART_BACKOFF_FIRST: Duration = Duration::from_millis(100);

// A lease occupies a connection for as long as it lives, and its client needs another for its PUTs.
const _: () = assert!(LEASES_MAX < CONNECTIONS_PER_PRINCIPAL_MAX);
const _: () = assert!(CONNECTIONS_PER_PRINCIPAL_MAX + CONNECTIONS_UNPROVEN_MAX < CONNECTIONS_MAX);
const _: () = assert!(TTL_MS_MIN <= TTL_MS_DEFAULT && TTL_MS_DEFAULT <= TTL_MS_MAX);
