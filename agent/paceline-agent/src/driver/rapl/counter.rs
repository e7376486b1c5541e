//! A counter that begins anew at a known bound, as one that only rises.

/// Whoever reads it less often than it wraps cannot tell one turn from two: at 262 kJ and 400 W that is every 11 minutes.
#[derive(Debug)]
pub struct WrappingCounter {
    range: Option<u64>,
    last: Option<u64>,
    total: u64,
}

impl WrappingCounter {
    /// `range`: the highest value before it begins at 0 again; `None` where it is not told, and then it is a start anew.
    pub fn new(range: Option<u64>) -> Self {
        Self {
            range,
            last: None,
            total: 0,
        }
    }

    /// The sum so far, beginning with the first value that was read.
    pub fn total(&mut self, now: u64) -> u64 {
        let step = match self.last {
            None => now,
            Some(last) if now >= last => now - last,
            Some(last) => now + self.range.map_or(0, |range| range.saturating_sub(last)),
        };
        self.last = Some(now);
        self.total = self.total.saturating_add(step);
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::WrappingCounter;

    #[test]
    fn a_turn_of_the_counter_is_no_step_back() {
        let mut counter = WrappingCounter::new(Some(1_000));
        let read = [400, 900, 900, 100, 50].map(|now| counter.total(now));
        assert_eq!(read, [400, 900, 900, 1_100, 2_050]);
        let mut unknown = WrappingCounter::new(None);
        assert_eq!([400, 100].map(|now| unknown.total(now)), [400, 500]);
    }
}
