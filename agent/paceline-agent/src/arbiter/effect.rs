//! What the arbiter wants done, and what it is told of what was done. Closed lists.

use super::lease::{DeviceIndex, LeaseId};
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

/// Goes into the device's mailbox, where it replaces what is still there: the latest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    pub device: DeviceIndex,
    pub generation: u64,
    pub setting: Setting,
    /// No lease holds the device any more: once it is at default it may leave the journal.
    pub release: bool,
    pub cause: Cause,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    pub device: DeviceIndex,
    pub generation: u64,
    pub setting: Setting,
    pub result: Result<(), String>,
}

/// Why a device is told something. A label of metrics and audit lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    Granted,
    Targets,
    HoldLapsed,
    LoweringDue,
    GroupFailed,
    Retry,
    Start,
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
