//! Audit lines: who was granted what, who was refused, what was written to which device. One function per line, so that
//! names and units live in one place. They are log lines with the target `audit`.

use std::net::SocketAddr;
use std::time::Duration;

use crate::arbiter::{Command, EndReason, LeaseId};
use crate::device::{DeviceError, DeviceId};
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

pub fn clock_written(
    device: &DeviceId,
    command: &Command,
    direction: Direction,
    call: Duration,
    result: &Result<(), DeviceError>,
) {
    let clock_mhz = command.setting.clock_mhz();
    let call_us = u64::try_from(call.as_micros()).unwrap_or(u64::MAX);
    let cause = command.cause.as_str();
    let direction = direction.as_str();
    match result {
        Ok(()) => {
            tracing::info!(target: "audit", event = "clock-written", %device, clock_mhz, direction, cause, call_us);
        }
        Err(wrong) => {
            tracing::error!(target: "audit", event = "clock-write-failed", %device, clock_mhz, direction, cause,
                call_us, error = %wrong);
        }
    }
}

/// By `restore`, outside of any lease.
pub fn device_restored(device: &DeviceId, result: &Result<(), DeviceError>) {
    match result {
        Ok(()) => tracing::info!(target: "audit", event = "device-restored", %device),
        Err(wrong) => {
            tracing::error!(target: "audit", event = "device-restore-failed", %device, error = %wrong);
        }
    }
}
