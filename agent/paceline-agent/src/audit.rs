//! Audit lines: who was granted what, who was refused, what was written to which device. One function per line, so that
//! names and units live in one place. They are log lines with the target `audit`.

use std::time::Duration;

use crate::arbiter::{Command, EndReason, LeaseId};
use crate::device::{DeviceError, DeviceId};
use crate::http::Peer;
use crate::write_stats::Direction;

pub fn lease_granted(peer: &Peer, lease_id: LeaseId, epoch: u64, holder: &str, devices: &[String]) {
    tracing::info!(target: "audit", event = "lease-granted", uid = peer.uid, gid = peer.gid, pid = peer.pid,
        %lease_id, epoch, holder, devices = devices.join(","));
}

pub fn lease_ended(lease_id: LeaseId, holder: &str, uid: u32, reason: EndReason) {
    tracing::info!(target: "audit", event = "lease-ended", uid, %lease_id, holder, reason = reason.as_str());
}

/// Any refused request that would have changed something.
pub fn refused(peer: &Peer, method: &str, path: &str, status: u16, problem: &str, detail: &str) {
    tracing::warn!(target: "audit", event = "refused", uid = peer.uid, gid = peer.gid, pid = peer.pid,
        method, path, status, problem, detail);
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
