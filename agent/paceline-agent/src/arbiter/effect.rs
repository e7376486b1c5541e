//! What the arbiter wants done, and what it is told of what was done. Closed lists.

use super::lease::{Knob, LeaseId};
use super::setting::Setting;
use crate::principal::Principal;

#[derive(Clone, Debug)]
pub enum Effect {
    Command(Command),
    LeaseEnded {
        lease_id: LeaseId,
        holder: String,
        principal: Principal,
        reason: EndReason,
    },
}

/// Goes into the device's mailbox, where it replaces what is still there for this knob: the latest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    pub knob: Knob,
    pub generation: u64,
    pub setting: Setting,
    /// No lease holds the knob any more: once it is at default it may leave the journal.
    pub release: bool,
    pub cause: Cause,
    /// Somebody else set the knob since: nothing is written, and what is said of it here is what follows.
    pub disown: Option<Evidence>,
}

/// How it is known that somebody else set a knob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Its getter says something that this agent did not write. What we found before is no longer ours to put back.
    Read,
    /// It has no getter, and the device runs faster than it was held to. Probably; so it is reset in the end all the same.
    Inferred,
}

impl Evidence {
    pub fn as_str(self) -> &'static str {
        match self {
            Evidence::Read => "read",
            Evidence::Inferred => "inferred",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    pub knob: Knob,
    pub generation: u64,
    pub setting: Setting,
    pub result: Result<(), String>,
}

/// Why a knob is told something. A label of metrics and audit lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    Granted,
    Targets,
    HoldLapsed,
    LoweringDue,
    GroupFailed,
    Retry,
    Start,
    ForeignWriter,
    Ended(EndReason),
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Granted => "granted",
            Cause::Targets => "targets",
            Cause::HoldLapsed => "hold-lapsed",
            Cause::LoweringDue => "lowering-due",
            Cause::GroupFailed => "group-failed",
            Cause::Retry => "retry",
            Cause::Start => "start",
            Cause::ForeignWriter => "foreign-writer",
            Cause::Ended(reason) => reason.as_str(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndReason {
    Released,
    Disconnected,
    Expired,
    Shutdown,
    /// A new policy would not have granted it.
    Revoked,
}

impl EndReason {
    pub fn as_str(self) -> &'static str {
        match self {
            EndReason::Released => "released",
            EndReason::Disconnected => "disconnected",
            EndReason::Expired => "expired",
            EndReason::Shutdown => "shutdown",
            EndReason::Revoked => "revoked",
        }
    }
}
