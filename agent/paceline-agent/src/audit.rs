//! Audit lines: who was granted what, who was refused, what was written to which device. One function per line, so that
//! names and units live in one place. They are log lines with the target `audit`.

use std::net::SocketAddr;
use std::time::Duration;

use crate::arbiter::{Command, EndReason, Evidence, LeaseId};
use crate::device::{ControlName, DeviceError, DeviceId};
use crate::http::Peer;
use crate::principal::Principal;
use crate::start_error::StartError;
use crate::write_stats::Direction;

pub fn lease_granted(peer: &Peer, lease_id: LeaseId, epoch: u64, holder: &str, devices: &[String]) {
    tracing::info!(target: "audit", event = "lease-granted", uid = peer.principal.uid(), gid = peer.gid,
        pid = peer.pid, token = peer.principal.token(), address = peer.address.map(display), %lease_id, epoch, holder,
        devices = devices.join(","));
}

pub fn lease_ended(lease_id: LeaseId, holder: &str, principal: &Principal, reason: EndReason) {
    tracing::info!(target: "audit", event = "lease-ended", uid = principal.uid(), token = principal.token(), %lease_id,
        holder, reason = reason.as_str());
}

/// Any refused request that would have changed something.
pub fn refused(peer: &Peer, method: &str, path: &str, status: u16, problem: &str, detail: &str) {
    tracing::warn!(target: "audit", event = "refused", uid = peer.principal.uid(), gid = peer.gid,
        pid = peer.pid, token = peer.principal.token(), address = peer.address.map(display), method, path, status,
        problem, detail);
}

/// A TCP request without a good token, or a browser's. `unwritten`: refusals since the last such line that got none.
pub fn token_refused(
    address: SocketAddr,
    method: &str,
    path: &str,
    status: u16,
    problem: &str,
    detail: &str,
    unwritten: u64,
) {
    tracing::warn!(target: "audit", event = "token-refused", %address, method, path, status, problem, detail,
        unwritten);
}

pub fn policy_reloaded(revoked: usize) {
    tracing::info!(target: "audit", event = "policy-reloaded", revoked);
}

/// The old one stays in force.
pub fn policy_reload_refused(wrong: &StartError) {
    tracing::error!(target: "audit", event = "policy-reload-refused", error = %wrong);
}

/// Events `clock-written` and `power-limit-written`, `…-write-failed` where the driver refused.
pub fn written(
    device: &DeviceId,
    command: &Command,
    direction: Direction,
    call: Duration,
    result: &Result<(), DeviceError>,
) {
    let (clock_mhz, power_limit_mw) = by_control(command);
    let call_us = u64::try_from(call.as_micros()).unwrap_or(u64::MAX);
    let cause = command.cause.as_str();
    let direction = direction.as_str();
    let (written, failed) = match command.knob.control {
        ControlName::Clock => ("clock-written", "clock-write-failed"),
        ControlName::PowerLimit => ("power-limit-written", "power-limit-write-failed"),
    };
    match result {
        Ok(()) => {
            tracing::info!(target: "audit", event = written, %device, clock_mhz, power_limit_mw, direction, cause,
                call_us);
        }
        Err(wrong) => {
            tracing::error!(target: "audit", event = failed, %device, clock_mhz, power_limit_mw, direction, cause,
                call_us, error = %wrong);
        }
    }
}

/// By an agent that observes: what it would have written.
pub fn recommended(device: &DeviceId, command: &Command) {
    let (clock_mhz, power_limit_mw) = by_control(command);
    let cause = command.cause.as_str();
    tracing::info!(target: "audit", event = "recommended", %device, clock_mhz, power_limit_mw, cause);
}

pub fn foreign_writer(device: &DeviceId, control: ControlName, evidence: Evidence) {
    let evidence = evidence.as_str();
    tracing::warn!(target: "audit", event = "foreign-writer", %device, %control, evidence,
        "somebody else sets this; it is left alone");
}

/// By `restore`, outside of any lease.
pub fn device_restored(device: &DeviceId, control: ControlName, result: &Result<(), DeviceError>) {
    match result {
        Ok(()) => tracing::info!(target: "audit", event = "device-restored", %device, %control),
        Err(wrong) => {
            tracing::error!(target: "audit", event = "device-restore-failed", %device, %control, error = %wrong);
        }
    }
}

fn by_control(command: &Command) -> (Option<u32>, Option<u32>) {
    match command.knob.control {
        ControlName::Clock => (command.setting.value(), None),
        ControlName::PowerLimit => (None, command.setting.value()),
    }
}
