//! Log lines as JSON on stderr, written by a thread of their own: a reader of stderr that stalls must not stall a clock.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait for a slow reader; the ones after that are dropped and counted.
const LINES_MAX: usize = 4096;

/// What leaving waits for the last lines.
const FLUSH_MAX: Duration = Duration::from_millis(200);

static SENDER: OnceLock<SyncSender<Item>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

pub fn start(level: LevelFilter) -> io::Result<()> {
    let (sender, receiver) = sync_channel(LINES_MAX);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_lines(&receiver))?;
    let sender = SENDER.get_or_init(|| sender);
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(level)
        .with_writer(LineMaker { sender })
        .init();
    Ok(())
}

/// Before the process ends.
pub fn flush() {
    let Some(sender) = SENDER.get() else { return };
    let (done, wait) = sync_channel(1);
    if sender.try_send(Item::Flush(done)).is_ok() {
        let _ = wait.recv_timeout(FLUSH_MAX);
    }
}

fn write_lines(receiver: &Receiver<Item>) {
    let mut stderr = io::stderr();
    while let Ok(item) = receiver.recv() {
        match item {
            Item::Line(line) => {
                // Nobody is left to be told that the log cannot be written.
                let _ = stderr.write_all(&line);
                let dropped = DROPPED.swap(0, Ordering::Relaxed);
                if dropped > 0 {
                    let _ = writeln!(
                        stderr,
                        r#"{{"level":"WARN","message":"{dropped} log lines were dropped"}}"#
                    );
                }
            }
            Item::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

struct LineMaker {
    sender: &'static SyncSender<Item>,
}

/// One event: the subscriber writes it whole.
struct Line {
    sender: &'static SyncSender<Item>,
}

impl MakeWriter<'_> for LineMaker {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line { sender: self.sender }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Item::Line(bytes.to_vec())) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
