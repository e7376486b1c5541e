//! A lease: the right to slow devices down, and what it says of each of them.

#[cfg(test)]
mod properties;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::bounds::Bounds;
use crate::device::ControlName;
use crate::principal::Principal;

/// A device's place in the list the agent found at start. The list never changes while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceIndex(pub usize);

/// One control of one device: the unit that leases hold, demands are about and commands set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Knob {
    pub device: DeviceIndex,
    pub control: ControlName,
}

/// 128 random bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u128);

impl LeaseId {
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 32 || !is_hex {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(LeaseId)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

#[derive(Clone, Debug)]
pub struct Lease {
    pub id: LeaseId,
    pub epoch: u64,
    pub holder: String,
    /// Who was granted it; nobody else may use it, though everybody may see it.
    pub principal: Principal,
    pub ttl: Duration,
    pub expires_at: Instant,
    /// `None` until the first PUT, so that a client may begin at 0.
    pub last_seq: Option<u64>,
    pub holdings: BTreeMap<Knob, Holding>,
}

#[derive(Clone, Copy, Debug)]
pub struct Holding {
    pub terms: Terms,
    pub demand: Demand,
    /// The group of a wish for the default. A knob that cannot go there takes its group along.
    pub default_group: Option<Group>,
}

/// What the policy lets this lease do to one knob. Taken when the lease is granted, and again from a new policy.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub bounds: Bounds,
    pub hold_max: Duration,
    pub lowering_interval: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Said nothing, asked for it, or the hold has passed.
    Default,
    Limit {
        value: u32,
        lapses_at: Instant,
        group: Group,
    },
    /// One knob of its group could not be set: the default, until the client says something new.
    Failed,
    /// Somebody else sets this knob: left alone, until the client says something new.
    Yielded,
}

/// Knobs of one target, which are set together or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(pub u64);
