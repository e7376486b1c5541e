//! Epochs: a number for every lease that rises over restarts too, so that a PUT meant for an old lease is seen as such.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::limits::{EPOCH_BLOCK, SEQ_MAX};
use crate::start_error::StartError;
use crate::state_dir::StateDir;

const FILE: &str = "epoch.json";

const NEXT_EPOCH_MAX: u64 = SEQ_MAX / 2;

pub struct Epochs {
    directory: StateDir,
    counter: Mutex<Counter>,
}

struct Counter {
    next: u64,
    /// On disk: a later process begins here. Everything below may have been given out.
    reserved: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EpochFile {
    next_epoch: u64,
}

impl Epochs {
    pub fn open(directory: StateDir) -> Result<Self, StartError> {
        let path = directory.path_of(FILE);
        let refused = |wrong: String| {
            StartError::refused(format!(
                "{}: {wrong}; remove it once no client of the old agent is left",
                path.display()
            ))
        };
        let next = match directory.read(FILE) {
            Ok(None) => 1,
            Ok(Some(text)) => {
                let file: EpochFile =
                    serde_json::from_str(&text).map_err(|wrong| refused(wrong.to_string()))?;
                // No client could say a larger one, and one so large was never given out.
                if file.next_epoch > NEXT_EPOCH_MAX {
                    let next = file.next_epoch;
                    return Err(refused(format!(
                        "next_epoch: got {next}, wanted at most {NEXT_EPOCH_MAX}"
                    )));
                }
                file.next_epoch
            }
            Err(wrong) => return Err(refused(wrong.to_string())),
        };
        Ok(Self {
            directory,
            counter: Mutex::new(Counter { next, reserved: next }),
        })
    }

    /// Waits for the disk once in `EPOCH_BLOCK` calls.
    pub fn take(&self) -> std::io::Result<u64> {
        let mut counter = self.counter.lock().unwrap_or_else(PoisonError::into_inner);
        if counter.next == counter.reserved {
            let reserved = counter.reserved + EPOCH_BLOCK;
            let file = EpochFile { next_epoch: reserved };
            let text = serde_json::to_string(&file).expect("a number");
            self.directory.write(FILE, &text)?;
            counter.reserved = reserved;
        }
        let epoch = counter.next;
        counter.next += 1;
        Ok(epoch)
    }
}
