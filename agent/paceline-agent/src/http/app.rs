//! From a request to its answer: which path, which method, who asks. What each path does stands in its own file.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::answer::{self, Answer};
use super::problem::{Problem, ProblemKind};
use super::{Peer, device_routes, lease_routes, metrics};
use crate::audit;
use crate::control::Control;
use crate::epoch::Epochs;
use crate::limits::{BODY_BYTES_MAX, BODY_READ_MAX};
use crate::policy::Policy;

pub struct App {
    pub control: Arc<Control>,
    pub policy: Policy,
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
    pub async fn answer(self: Arc<Self>, peer: Arc<Peer>, request: Request<Incoming>) -> Answer {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        match self.route(&peer, request).await {
            Ok(answer) => answer,
            Err(Refused { problem, allow }) => {
                // Reading is open to all, so only what would have changed something is worth an audit line.
                if method != Method::GET {
                    let status = problem.kind.status().as_u16();
                    let name = problem.kind.name();
                    audit::refused(&peer, method.as_str(), &path, status, name, &problem.detail);
                }
                answer::problem(&problem, allow)
            }
        }
    }

    async fn route(self: &Arc<Self>, peer: &Peer, request: Request<Incoming>) -> Result<Answer, Refused> {
        let method = request.method().clone();
        let uri = request.uri().clone();
        let segments: Vec<&str> = uri.path().split('/').skip(1).collect();
        let answer = match (segments.as_slice(), &method) {
            (["healthz"], &Method::GET) => answer::json(&json!({"status": "ok"})),
            (["readyz"], &Method::GET) => self.ready(),
            (["metrics"], &Method::GET) => metrics::answer(self).await,
            (["v1", "devices"], &Method::GET) => device_routes::devices(self, peer),
            (["v1", "samples"], &Method::GET) => device_routes::samples(self, &uri).await?,
            (["v1", "stream"], &Method::GET) => device_routes::stream(self, &uri)?,
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

    fn ready(&self) -> Answer {
        let pending = self.control.restores_pending();
        let (status, word) = if pending.is_empty() {
            (StatusCode::OK, "ready")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "restoring")
        };
        let pending: Vec<&str> = pending.iter().map(|device| device.0.as_str()).collect();
        let body = json!({"status": word, "mode": self.mode.as_str(), "restores_pending": pending});
        answer::json_with(status, &body)
    }
}

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
                let wrong = format!("/{} is not a path of this agent", segments.join("/"));
                return Problem::new(ProblemKind::UnknownPath, wrong).into();
            }
        };
        let wrong = format!("got {method}, this path knows {allow}");
        Self {
            problem: Problem::new(ProblemKind::WrongMethod, wrong),
            allow: Some(allow),
        }
    }
}

async fn read_json(request: Request<Incoming>) -> Result<Value, Problem> {
    let body = read_body(request, BODY_READ_MAX).await?;
    serde_json::from_slice(&body)
        .map_err(|wrong| Problem::new(ProblemKind::BadRequest, format!("the body is not JSON: {wrong}")))
}

async fn read_body(request: Request<Incoming>, within: Duration) -> Result<Bytes, Problem> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX);
    match tokio::time::timeout(within, body.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(wrong)) if wrong.is::<LengthLimitError>() => Err(Problem::new(
            ProblemKind::BodyTooLarge,
            format!("wanted at most {BODY_BYTES_MAX} bytes"),
        )
        .allowed(BODY_BYTES_MAX)),
        Ok(Err(wrong)) => Err(Problem::new(
            ProblemKind::BadRequest,
            format!("the body could not be read: {wrong}"),
        )),
        Err(_) => Err(Problem::new(
            ProblemKind::BodyTooSlow,
            format!("wanted the whole body within {} ms", within.as_millis()),
        )),
    }
}
