//! How long changes took to arrive, per pair of settings.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::limits::{SETTLE_PAIRS_MAX, SETTLE_TIMES_MAX};

/// From one ceiling to another; `None` is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub from: Option<u32>,
    pub to: Option<u32>,
}

#[derive(Clone, Debug, Default)]
pub struct SettleTimes {
    pairs: BTreeMap<Span, Pair>,
    used: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Pair {
    /// Changes whose arrival was seen.
    pub count: u64,
    /// Changes that had not arrived within `SETTLE_MAX`.
    pub late: u64,
    latest_us: VecDeque<u64>,
    last_used: u64,
}

impl SettleTimes {
    /// `None`: it did not arrive. The pair that was not seen for longest makes room for a new one.
    pub fn record(&mut self, span: Span, settled: Option<Duration>) {
        self.used += 1;
        if self.pairs.len() >= SETTLE_PAIRS_MAX && !self.pairs.contains_key(&span) {
            let oldest = self.pairs.iter().min_by_key(|(_, pair)| pair.last_used);
            if let Some(oldest) = oldest.map(|(&span, _)| span) {
                self.pairs.remove(&oldest);
            }
        }
        let pair = self.pairs.entry(span).or_default();
        pair.last_used = self.used;
        match settled {
            None => pair.late += 1,
            Some(settled) => {
                pair.count += 1;
                if pair.latest_us.len() == SETTLE_TIMES_MAX {
                    pair.latest_us.pop_front();
                }
                pair.latest_us
                    .push_back(u64::try_from(settled.as_micros()).unwrap_or(u64::MAX));
            }
        }
    }

    /// Rises with every change.
    pub fn revision(&self) -> u64 {
        self.used
    }

    pub fn pairs(&self) -> impl Iterator<Item = (Span, &Pair)> {
        self.pairs.iter().map(|(&span, pair)| (span, pair))
    }
}

impl Pair {
    /// Of the latest; `None` where none has arrived.
    pub fn us_p50(&self) -> Option<u64> {
        let mut sorted: Vec<u64> = self.latest_us.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    pub fn us_max(&self) -> Option<u64> {
        self.latest_us.iter().copied().max()
    }
}
