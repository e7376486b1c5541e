//! What the leases may have asked for, as far as a client can know: how slow each knob may be at an instant.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A device and a control; values are MHz or milliwatts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Knob {
    pub device: u32,
    pub control: Control,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Control {
    Clock,
    PowerLimit,
}

impl Control {
    pub fn name(self) -> &'static str {
        match self {
            Control::Clock => "clock",
            Control::PowerLimit => "power_limit",
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Control::Clock => "mhz",
            Control::PowerLimit => "mw",
        }
    }
}

/// Faster than every value.
pub const DEFAULT: u32 = u32::MAX;

/// One lease's demand of one knob, from the side of who sent it.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub value: u32,
    /// The earliest and the latest instant at which its hold may pass.
    pub lapses_at: (Instant, Instant),
    pub is_deferred: bool,
    pub said_at: Instant,
}

#[derive(Debug)]
pub struct Terms {
    pub ttl: Duration,
    /// The earliest and the latest instant at which it may expire.
    pub expires_at: (Instant, Instant),
    /// It may end at any moment without our knowing: it only excuses, it does not demand.
    pub is_uncertain: bool,
    pub claims: BTreeMap<Knob, Option<Claim>>,
}

impl Terms {
    /// The slowest that this lease may want of the knob now.
    fn slowest(&self, knob: Knob, now: Instant) -> Option<u32> {
        let claim = self.claims.get(&knob)?;
        let claim = claim.filter(|claim| now < claim.lapses_at.1);
        Some(claim.map_or(DEFAULT, |claim| claim.value))
    }
}

/// As slow as the knob may be by now, if everything that was due has been done.
pub fn required<'a>(leases: impl Iterator<Item = &'a Terms>, knob: Knob, now: Instant) -> u32 {
    let alive: Vec<&Terms> = leases.filter(|terms| now < terms.expires_at.1).collect();
    let wanted = alive.iter().filter_map(|terms| terms.slowest(knob, now));
    let slowest = wanted.min().unwrap_or(DEFAULT);
    let certain = alive
        .iter()
        .filter(|terms| !terms.is_uncertain && now < terms.expires_at.0);
    let fastest = certain.filter_map(|terms| terms.slowest(knob, now)).max();
    fastest.unwrap_or(slowest)
}

/// Nothing of this knob changes by itself about now.
pub fn is_quiet<'a>(leases: impl Iterator<Item = &'a Terms>, knob: Knob, now: Instant) -> bool {
    let near = Duration::from_millis(700);
    let mut held = leases.filter(|terms| terms.claims.contains_key(&knob));
    held.all(|terms| {
        let claim = terms.claims[&knob];
        let is_lasting = |(earliest, _): (Instant, Instant)| now + near < earliest;
        let is_lapsed = |(_, latest): (Instant, Instant)| latest + near < now;
        !terms.is_uncertain
            && is_lasting(terms.expires_at)
            && claim.is_none_or(|claim| {
                (is_lasting(claim.lapses_at) && !claim.is_deferred) || is_lapsed(claim.lapses_at)
            })
    })
}
