//! From a request to its answer: which path, which method, who asks. What each path does stands in its own file.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::answer::{self, Answer};
use super::bearer::{Refusals, authenticate, needs_no_token, refuse_browsers};
use super::places::Place;
use super::problem::{Problem, ProblemKind};
use super::query::Query;
use super::{Peer, device_routes, lease_routes, metrics};
use crate::access::Access;
use crate::audit;
use crate::control::Control;
use crate::epoch::Epochs;
use crate::json_fields::{quotable, shortened};
use crate::limits::{BODY_BYTES_MAX, BODY_READ_MAX};

/// Of a method that no path knows, in a refusal: HTTP lets it be as long as a head.
const METHOD_CHARS_MAX: usize = 40;

pub struct App {
    pub control: Arc<Control>,
    pub access: Access,
    pub token_refusals: Refusals,
    pub epochs: Epochs,
    pub mode: Mode,
    /// Becomes true when the agent leaves: streams end then.
    pub closing: watch::Sender<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Control,
    Observe,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Mode::Control => "control",
            Mode::Observe => "observe",
        }
    }
}

impl App {
    /// Over TCP a request says itself who it comes from, and first of all that it does not come from a browser.
    pub async fn answer_tcp(
        self: Arc<Self>,
        address: SocketAddr,
        place: &Place,
        request: Request<Incoming>,
    ) -> Answer {
        let principal = match refuse_browsers(&request) {
            Ok(()) if needs_no_token(&request) => return healthy(),
            Ok(()) => authenticate(&self.access, &request),
            Err(problem) => Err(problem),
        };
        let principal = principal.map_err(|problem| {
            let path = request.uri().path();
            self.token_refusals
                .refuse(problem, address, request.method(), path)
        });
        let admitted = principal.and_then(|principal| place.prove(&principal).map(|()| principal));
        match admitted {
            Ok(principal) => self.answer(&Peer::of_tcp(principal, address), request).await,
            Err(problem) => answer::problem(&problem, None),
        }
    }

    pub async fn answer(self: Arc<Self>, peer: &Peer, request: Request<Incoming>) -> Answer {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        match self.route(peer, request).await {
            Ok(answer) => answer,
            Err(Refused { problem, allow }) => {
                // Reading is open to all, so only what would have changed something is worth an audit line.
                if method != Method::GET {
                    let status = problem.kind.status().as_u16();
                    let name = problem.kind.name();
                    audit::refused(peer, method.as_str(), &path, status, name, &problem.detail);
                }
                answer::problem(&problem, allow)
            }
        }
    }

    async fn route(self: &Arc<Self>, peer: &Peer, request: Request<Incoming>) -> Result<Answer, Refused> {
        let method = request.method().clone();
        let uri = request.uri().clone();
        let segments: Vec<&str> = uri.path().split('/').skip(1).collect();
        if !matches!(segments.as_slice(), ["v1", "samples" | "stream"]) {
            Query::of(&uri, &[])?;
        }
        let answer = match (segments.as_slice(), &method) {
            (["healthz"], &Method::GET) => healthy(),
            (["readyz"], &Method::GET) => self.ready(),
            (["metrics"], &Method::GET) => metrics::answer(self).await,
            (["v1", "devices"], &Method::GET) => device_routes::devices(self, peer),
            (["v1", "samples"], &Method::GET) => device_routes::samples(self, &uri).await?,
            (["v1", "stream"], &Method::GET) => device_routes::stream(self, peer, &uri)?,
            (["v1", "leases"], &Method::POST) => {
                lease_routes::grant(self, peer, &read_json(request).await?).await?
            }
            (["v1", "leases", lease_id, "targets"], &Method::PUT) => {
                lease_routes::put_targets(self, peer, lease_id, &read_json(request).await?).await?
            }
            (["v1", "leases", lease_id], &Method::DELETE) => {
                lease_routes::release(self, peer, lease_id).await?
            }
            (path, _) => return Err(Refused::no_route(path, &method)),
        };
        Ok(answer)
    }

    /// What the files say now; leases that they would not grant any more end. Where they are invalid nothing changes.
    pub fn reload(&self) {
        let reloaded = self.access.reload(|rules| {
            self.control.revoke(|principal, knob, steps| {
                let info = self.control.device(knob.device).info();
                let rule = rules.rule(principal, &info.id, knob.control)?;
                Some(rule.allowance(knob.control, steps))
            })
        });
        match reloaded {
            Ok(revoked) => audit::policy_reloaded(revoked),
            Err(wrong) => audit::policy_reload_refused(&wrong),
        }
    }

    fn ready(&self) -> Answer {
        let pending = self.control.restores_pending();
        let (status, word) = if pending.is_empty() {
            (StatusCode::OK, "ready")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "restoring")
        };
        let pending: Vec<&str> = pending.iter().map(|device| device.0.as_str()).collect();
        let loaded = self.access.loaded();
        let body = json!({"status": word, "mode": self.mode.as_str(), "restores_pending": pending,
            "policy": {"loaded_at_unix_ms": loaded.at_unix_ms, "error": loaded.error}});
        answer::json_with(status, &body)
    }
}

fn healthy() -> Answer {
    answer::json(&json!({"status": "ok"}))
}

const PATHS: [&str; 9] = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/devices",
    "/v1/samples",
    "/v1/stream",
    "/v1/leases",
    "/v1/leases/{lease_id}",
    "/v1/leases/{lease_id}/targets",
];

struct Refused {
    problem: Problem,
    allow: Option<&'static str>,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { problem, allow: None }
    }
}

impl Refused {
    fn no_route(segments: &[&str], method: &Method) -> Self {
        let allow = match segments {
            ["healthz" | "readyz" | "metrics"] | ["v1", "devices" | "samples" | "stream"] => "GET",
            ["v1", "leases"] => "POST",
            ["v1", "leases", _] => "DELETE",
            ["v1", "leases", _, "targets"] => "PUT",
            _ => {
                let given = quotable(Value::from(format!("/{}", segments.join("/"))));
                let wrong = format!("path: got {given}, wanted one of {}", PATHS.join(", "));
                let problem = Problem::new(ProblemKind::UnknownPath, wrong).at("path");
                return problem.given(given).allowed(PATHS.to_vec()).into();
            }
        };
        let method = shortened(method.to_string(), METHOD_CHARS_MAX);
        let wrong = format!("method: got {method}, this path knows {allow}");
        let problem = Problem::new(ProblemKind::WrongMethod, wrong).at("method");
        Self {
            problem: problem.given(method).allowed(allow),
            allow: Some(allow),
        }
    }
}

async fn read_json(request: Request<Incoming>) -> Result<Value, Problem> {
    let body = read_body(request, BODY_READ_MAX).await?;
    serde_json::from_slice(&body).map_err(|wrong| {
        let wrong = format!("body: not JSON: {wrong}");
        let problem = Problem::new(ProblemKind::BadRequest, wrong).at("body");
        let given = quotable(Value::from(String::from_utf8_lossy(&body)));
        problem.given(given).allowed("one JSON object")
    })
}

async fn read_body(request: Request<Incoming>, within: Duration) -> Result<Bytes, Problem> {
    // What the client said that it would send, if it did.
    let announced = request.body().size_hint().exact();
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX);
    match tokio::time::timeout(within, body.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(wrong)) if wrong.is::<LengthLimitError>() => {
            let given = announced.map_or(Value::from("more"), Value::from);
            let wrong = format!("body: got {given} bytes, wanted at most {BODY_BYTES_MAX}");
            let problem = Problem::new(ProblemKind::BodyTooLarge, wrong).at("body");
            Err(problem.given(given).allowed(BODY_BYTES_MAX))
        }
        Ok(Err(wrong)) => {
            let wrong = format!("body: it could not be read: {wrong}");
            let problem = Problem::new(ProblemKind::BadRequest, wrong).at("body");
            Err(problem.allowed("as many bytes as content-length says, or whole chunks"))
        }
        Err(_) => {
            let allowed = format!("the whole body within {} ms of its head", within.as_millis());
            let problem = Problem::new(ProblemKind::BodyTooSlow, format!("body: wanted {allowed}"));
            Err(problem.at("body").allowed(allowed))
        }
    }
}
