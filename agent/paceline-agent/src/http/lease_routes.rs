//! POST, PUT and DELETE of leases. The arbiter decides; here stand the policy, the stream and the words.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::answer::{self, Answer};
use super::app::{App, Mode};
use super::device_routes::unknown_device;
use super::lease_requests::{LeaseBody, not_held, read_lease, read_targets};
use super::peer::Peer;
use super::problem::{Problem, ProblemKind};
use crate::access::Rules;
use crate::arbiter::{
    Accepted, DeviceIndex, EndReason, EndRefusal, GrantRefusal, GrantRequest, Knob, LeaseId, Setting, Status,
    TargetsRefusal, TargetsRequest, Terms, Wish,
};
use crate::audit;
use crate::device::ControlName;
use crate::json_fields::quotable;
use crate::limits::{
    ANSWER_AFTER_MAX, HEARTBEAT_EVERY, LEASES_MAX, LEASES_PER_PRINCIPAL_MAX, TTL_MS_DEFAULT,
};

/// Granted, a heartbeat or two that a slow client has not read, ended.
const STREAM_LINES_MAX: usize = 4;

pub async fn grant(app: &Arc<App>, peer: &Peer, body: &Value) -> Result<Answer, Problem> {
    let body = read_lease(body)?;
    let devices = find_devices(app, &body)?;
    // Before an epoch is taken: whoever may do nothing must not be able to use them up.
    judge(app, &app.access.rules(), peer, &body, &devices)?;
    let epoch = take_epoch(app).await?;
    let lease_id = random_lease_id()?;
    // Held until the lease is granted. A reload waits for that, and then finds the lease.
    let rules = app.access.rules();
    let (terms, ttl_ms) = judge(app, &rules, peer, &body, &devices)?;
    let request = GrantRequest {
        id: lease_id,
        epoch,
        holder: body.holder.to_owned(),
        principal: peer.principal.clone(),
        ttl: Duration::from_millis(ttl_ms),
        knobs: terms,
    };
    let (guard, ended) = app
        .control
        .grant(request)
        .map_err(|refusal| grant_refused(app, &body, &refusal))?;
    drop(rules);
    let ids: Vec<String> = body.devices.iter().map(|&id| id.to_owned()).collect();
    audit::lease_granted(peer, lease_id, epoch, body.holder, &ids);
    let granted = json!({"type": "granted", "lease_id": lease_id.to_string(), "epoch": epoch,
        "ttl_ms": ttl_ms, "devices": ids});
    let (lines, receiver) = mpsc::channel(STREAM_LINES_MAX);
    lines
        .try_send(answer::line(&granted))
        .expect("the channel is new and empty");
    tokio::spawn(feed(lines, ended));
    Ok(answer::lines(StatusCode::CREATED, receiver, guard))
}

pub async fn put_targets(
    app: &Arc<App>,
    peer: &Peer,
    lease_id: &str,
    body: &Value,
) -> Result<Answer, Problem> {
    let lease_text = lease_id;
    let lease_id = parse_lease_id(lease_text)?;
    let body = read_targets(body, &app.control)?;
    let request = TargetsRequest {
        lease_id,
        principal: peer.principal.clone(),
        epoch: body.epoch,
        seq: body.seq,
        targets: body.targets,
    };
    let accepted = app
        .control
        .put_targets(&request)
        .map_err(|refusal| targets_refused(app, peer, &request, &refusal))?;
    let knobs: Vec<Knob> = accepted.iter().map(|one| one.knob).collect();
    app.control.settled(&knobs, ANSWER_AFTER_MAX).await;
    let results = app.control.view(|arbiter, _| {
        let ttl = arbiter.ttl(lease_id)?;
        let results = accepted.iter().map(|one| {
            let (status, target) = arbiter.status(lease_id, one.knob)?;
            Some(result_line(app, one, status, target))
        });
        Some((ttl, results.collect::<Option<Vec<Value>>>()?))
    });
    let Some((ttl, results)) = results else {
        // Between the two: it expired, was released, or a new policy revoked it.
        return Err(unknown_lease(lease_text));
    };
    let ttl_ms = u64::try_from(ttl.as_millis()).expect("at most TTL_MS_MAX");
    let body = json!({"lease_id": lease_id.to_string(), "ttl_ms": ttl_ms, "results": results});
    Ok(answer::json(&body))
}

pub async fn release(app: &Arc<App>, peer: &Peer, lease_id: &str) -> Result<Answer, Problem> {
    let lease_text = lease_id;
    let lease_id = parse_lease_id(lease_text)?;
    let knobs = app
        .control
        .release(lease_id, &peer.principal)
        .map_err(|refusal| match refusal {
            EndRefusal::UnknownLease => unknown_lease(lease_text),
            EndRefusal::NotYours => not_yours(peer, lease_id),
        })?;
    app.control.settled(&knobs, ANSWER_AFTER_MAX).await;
    let pending = app.control.restores_pending();
    let devices: BTreeSet<DeviceIndex> = knobs.iter().map(|knob| knob.device).collect();
    let ids = devices
        .into_iter()
        .map(|device| &app.control.device(device).info().id);
    let late: Vec<&str> = ids
        .filter(|id| pending.contains(id))
        .map(|id| id.0.as_str())
        .collect();
    if late.is_empty() {
        return Ok(answer::nothing());
    }
    let wrong = format!(
        "the lease has ended, but {} could not be brought to its default yet; the agent keeps trying",
        late.join(", ")
    );
    let problem = Problem::new(ProblemKind::RestorePending, wrong).at("devices");
    Err(problem.given(late).allowed("nothing to be done; see /readyz"))
}

/// An agent that observes has set nothing, so there its target stands as a recommendation.
fn result_line(app: &App, one: &Accepted, status: Status, target: Setting) -> Value {
    let unit = unit_of(one.knob.control);
    let observes = app.mode == Mode::Observe;
    let status = match status {
        Status::Applied | Status::Deferred if observes => "observed",
        status => status.as_str(),
    };
    let target = target.value();
    let mut line = json!({
        "device": app.control.device(one.knob.device).info().id.0,
        "control": one.knob.control.as_str(),
        format!("requested_{unit}"): one.requested,
        format!("demand_{unit}"): one.demand,
        format!("target_{unit}"): target.filter(|_| !observes),
        "clamped": one.clamped.map(|clamped| clamped.as_str()),
        "status": status,
    });
    if observes {
        line[format!("recommended_{unit}")] = json!(target);
    }
    line
}

fn unit_of(control: ControlName) -> &'static str {
    match control {
        ControlName::Clock => "mhz",
        ControlName::PowerLimit => "mw",
    }
}

fn find_devices(app: &App, body: &LeaseBody<'_>) -> Result<Vec<DeviceIndex>, Problem> {
    let devices = body.devices.iter().enumerate().map(|(position, id)| {
        app.control
            .find(id)
            .ok_or_else(|| unknown_device(app, &format!("devices[{position}]"), id))
    });
    devices.collect()
}

/// What the policy lets this peer do to each knob, and the TTL that all of its rules allow.
fn judge(
    app: &App,
    rules: &Rules,
    peer: &Peer,
    body: &LeaseBody<'_>,
    devices: &[DeviceIndex],
) -> Result<(Vec<(Knob, Terms)>, u64), Problem> {
    let mut all_terms = Vec::with_capacity(devices.len() * body.controls.len());
    let mut ttl_ms = body.ttl_ms.unwrap_or(TTL_MS_DEFAULT);
    let asked = devices.iter().enumerate().flat_map(|(position, &device)| {
        let controls = body.controls.iter();
        controls.map(move |&control| (position, Knob { device, control }))
    });
    for (position, knob) in asked {
        let info = app.control.device(knob.device).info();
        let field = format!("devices[{position}]");
        if !info.has(knob.control) {
            let wrong = format!("{field}: {} has no {} to set", info.id, knob.control);
            let has: Vec<&str> = info.controls().map(ControlName::as_str).collect();
            let problem = Problem::new(ProblemKind::BadRequest, wrong).at(field);
            return Err(problem.given(info.id.0.as_str()).allowed(has));
        }
        let Some(rule) = rules.rule(&peer.principal, &info.id, knob.control) else {
            let wrong = format!(
                "{field}: no rule of the policy lets {} set the {} of {}",
                peer.principal, knob.control, info.id
            );
            let problem = Problem::new(ProblemKind::PolicyDenied, wrong).at(field);
            let allowed = rules.device_patterns(&peer.principal, knob.control);
            return Err(problem.given(info.id.0.as_str()).allowed(allowed));
        };
        if ttl_ms > rule.ttl_ms_max {
            if body.ttl_ms.is_some() {
                let wrong = format!(
                    "ttl_ms: got {ttl_ms}, rule {:?} allows {}",
                    rule.name, rule.ttl_ms_max
                );
                let problem = Problem::new(ProblemKind::PolicyDenied, wrong).at("ttl_ms");
                return Err(problem.given(ttl_ms).allowed(rule.ttl_ms_max));
            }
            ttl_ms = rule.ttl_ms_max;
        }
        let allowance = app
            .control
            .view(|arbiter, _| rule.allowance(knob.control, arbiter.steps(knob)));
        all_terms.push((knob, allowance.terms));
    }
    Ok((all_terms, ttl_ms))
}

/// May wait for the disk, so not on a thread that serves others.
async fn take_epoch(app: &Arc<App>) -> Result<u64, Problem> {
    let taker = Arc::clone(app);
    let taken = tokio::task::spawn_blocking(move || taker.epochs.take()).await;
    let wrong = match taken {
        Ok(Ok(epoch)) => return Ok(epoch),
        Ok(Err(wrong)) => wrong.to_string(),
        Err(wrong) => wrong.to_string(),
    };
    let wrong = format!("no epoch can be reserved: {wrong}");
    Err(Problem::new(ProblemKind::StateDirectory, wrong))
}

fn random_lease_id() -> Result<LeaseId, Problem> {
    let mut bytes = [0u8; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|wrong| Problem::new(ProblemKind::StateDirectory, format!("/dev/urandom: {wrong}")))?;
    Ok(LeaseId(u128::from_le_bytes(bytes)))
}

async fn feed(lines: mpsc::Sender<Bytes>, mut ended: oneshot::Receiver<EndReason>) {
    let mut heartbeat = interval_at(Instant::now() + HEARTBEAT_EVERY, HEARTBEAT_EVERY);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            reason = &mut ended => {
                if let Ok(reason) = reason {
                    let line = json!({"type": "ended", "reason": reason.as_str()});
                    // Fails where nobody is left to read it.
                    let _ = lines.send(answer::line(&line)).await;
                }
                return;
            }
            _ = heartbeat.tick() => {
                // A full channel is a client that does not read. Its TTL judges it, not we.
                let _ = lines.try_send(answer::line(&json!({"type": "heartbeat"})));
            }
            () = lines.closed() => return,
        }
    }
}

fn grant_refused(app: &App, body: &LeaseBody<'_>, refusal: &GrantRefusal) -> Problem {
    match refusal {
        GrantRefusal::TooManyLeases { allowed } => {
            let wrong = format!(
                "leases: {LEASES_MAX} may be held, {LEASES_PER_PRINCIPAL_MAX} of them by one user or token; release one \
                 first"
            );
            let problem = Problem::new(ProblemKind::TooManyLeases, wrong).at("leases");
            problem.given(allowed + 1).allowed(*allowed)
        }
        GrantRefusal::RestorePending(knob) => {
            let id = &app.control.device(knob.device).info().id;
            let wrong = format!(
                "the {} of {id} is not known to be at its default; its restore is retried",
                knob.control
            );
            let position = body.devices.iter().position(|named| *named == id.0);
            let field = format!("devices[{}]", position.expect("only named devices are refused"));
            let problem = Problem::new(ProblemKind::RestorePending, wrong).at(field);
            problem
                .given(id.0.as_str())
                .allowed("a device at its default; see /readyz")
        }
        GrantRefusal::ShuttingDown => Problem::new(ProblemKind::ShuttingDown, "nothing is granted any more"),
    }
}

fn targets_refused(app: &App, peer: &Peer, request: &TargetsRequest, refusal: &TargetsRefusal) -> Problem {
    match refusal {
        TargetsRefusal::UnknownLease => unknown_lease(&request.lease_id.to_string()),
        TargetsRefusal::NotYours => not_yours(peer, request.lease_id),
        TargetsRefusal::OtherEpoch { epoch } => {
            let wrong = format!("epoch: got {}, this lease has {epoch}", request.epoch);
            let problem = Problem::new(ProblemKind::StaleEpoch, wrong).at("epoch");
            problem.given(request.epoch).allowed(*epoch)
        }
        TargetsRefusal::StaleSeq { last_seq } => {
            let wrong = format!("seq: got {}, wanted more than {last_seq}", request.seq);
            let problem = Problem::new(ProblemKind::StaleSeq, wrong).at("seq");
            problem
                .given(request.seq)
                .allowed(format!("more than {last_seq}"))
        }
        TargetsRefusal::NotHeld { target, knob } => {
            let wishes = request.targets[*target].wishes.iter();
            let mut devices: Vec<DeviceIndex> = wishes.map(|(knob, _)| knob.device).collect();
            devices.dedup();
            let position = devices
                .iter()
                .position(|device| *device == knob.device)
                .unwrap_or_default();
            let field = format!("targets[{target}].devices[{position}]");
            let wanted = format!("a device whose {} this lease holds", knob.control);
            not_held(&field, &app.control.device(knob.device).info().id.0, &wanted)
        }
        TargetsRefusal::HoldTooLong { target, hold_max } => {
            let allowed = u64::try_from(hold_max.as_millis()).expect("at most HOLD_MS_MAX");
            let field = format!("targets[{target}].hold_ms");
            let holds = request.targets[*target]
                .wishes
                .iter()
                .filter_map(|(_, wish)| match wish {
                    Wish::Limit { hold, .. } => Some(hold.as_millis()),
                    Wish::Default => None,
                });
            let given = u64::try_from(holds.max().unwrap_or_default()).expect("at most HOLD_MS_MAX");
            let wrong = format!("{field}: got {given}, the policy allows {allowed}");
            let problem = Problem::new(ProblemKind::PolicyDenied, wrong).at(field);
            problem.given(given).allowed(allowed)
        }
    }
}

fn parse_lease_id(text: &str) -> Result<LeaseId, Problem> {
    LeaseId::parse(text).ok_or_else(|| unknown_lease(text))
}

fn unknown_lease(text: &str) -> Problem {
    let given = quotable(Value::from(text));
    let wrong =
        format!("lease_id: got {given}; it may have expired, been released or revoked; ask for a new one");
    let problem = Problem::new(ProblemKind::UnknownLease, wrong).at("lease_id");
    problem
        .given(given)
        .allowed("the lease_id of a lease that is held")
}

fn not_yours(peer: &Peer, lease_id: LeaseId) -> Problem {
    let wrong = format!(
        "lease_id: a lease is used by whom it was granted to, and that was not {}",
        peer.principal
    );
    let problem = Problem::new(ProblemKind::NotYourLease, wrong).at("lease_id");
    problem
        .given(lease_id.to_string())
        .allowed("a lease of one's own")
}
