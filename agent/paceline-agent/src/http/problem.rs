//! Refusals as `application/problem+json` (RFC 9457). The one place that turns "no" into a status and a body.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::json_fields::{FieldError, quotable, shortened};

/// A misspelt key is part of a place, and as long as its author likes; refusals go into the audit too.
const FIELD_CHARS_MAX: usize = 200;
const DETAIL_CHARS_MAX: usize = 1_000;

#[derive(Clone, Debug)]
pub struct Problem {
    pub kind: ProblemKind,
    pub detail: String,
    pub field: Option<String>,
    pub given: Option<Value>,
    pub allowed: Option<Value>,
}

/// A closed list: clients may rely on `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    BadRequest,
    BodyTooLarge,
    BodyTooSlow,
    Unauthenticated,
    TooManyAttempts,
    NotForBrowsers,
    PolicyDenied,
    NotYourLease,
    UnknownDevice,
    UnknownLease,
    UnknownPath,
    WrongMethod,
    StaleEpoch,
    StaleSeq,
    TooManyLeases,
    TooManyConnections,
    RestorePending,
    ShuttingDown,
    StateDirectory,
}

impl ProblemKind {
    pub fn status(self) -> StatusCode {
        match self {
            ProblemKind::BadRequest => StatusCode::BAD_REQUEST,
            ProblemKind::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ProblemKind::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            ProblemKind::Unauthenticated => StatusCode::UNAUTHORIZED,
            ProblemKind::NotForBrowsers | ProblemKind::PolicyDenied | ProblemKind::NotYourLease => {
                StatusCode::FORBIDDEN
            }
            ProblemKind::UnknownDevice | ProblemKind::UnknownLease | ProblemKind::UnknownPath => {
                StatusCode::NOT_FOUND
            }
            ProblemKind::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            ProblemKind::StaleEpoch | ProblemKind::StaleSeq => StatusCode::PRECONDITION_FAILED,
            ProblemKind::TooManyAttempts | ProblemKind::TooManyLeases => StatusCode::TOO_MANY_REQUESTS,
            ProblemKind::TooManyConnections
            | ProblemKind::RestorePending
            | ProblemKind::ShuttingDown
            | ProblemKind::StateDirectory => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            ProblemKind::BadRequest => "bad-request",
            ProblemKind::BodyTooLarge => "body-too-large",
            ProblemKind::BodyTooSlow => "body-too-slow",
            ProblemKind::Unauthenticated => "unauthenticated",
            ProblemKind::TooManyAttempts => "too-many-attempts",
            ProblemKind::NotForBrowsers => "not-for-browsers",
            ProblemKind::PolicyDenied => "policy-denied",
            ProblemKind::NotYourLease => "not-your-lease",
            ProblemKind::UnknownDevice => "unknown-device",
            ProblemKind::UnknownLease => "unknown-lease",
            ProblemKind::UnknownPath => "unknown-path",
            ProblemKind::WrongMethod => "wrong-method",
            ProblemKind::StaleEpoch => "stale-epoch",
            ProblemKind::StaleSeq => "stale-seq",
            ProblemKind::TooManyLeases => "too-many-leases",
            ProblemKind::TooManyConnections => "too-many-connections",
            ProblemKind::RestorePending => "restore-pending",
            ProblemKind::ShuttingDown => "shutting-down",
            ProblemKind::StateDirectory => "state-directory",
        }
    }

    fn title(self) -> &'static str {
        match self {
            ProblemKind::BadRequest => "The request is not well formed",
            ProblemKind::BodyTooLarge => "The body is too large",
            ProblemKind::BodyTooSlow => "The body took too long to arrive",
            ProblemKind::Unauthenticated => "The request shows no token that is known here",
            ProblemKind::TooManyAttempts => "There are too many requests without a good token",
            ProblemKind::NotForBrowsers => "Browsers are not served",
            ProblemKind::PolicyDenied => "The policy does not allow this",
            ProblemKind::NotYourLease => "The lease belongs to somebody else",
            ProblemKind::UnknownDevice => "There is no such device",
            ProblemKind::UnknownLease => "There is no such lease, or it has ended",
            ProblemKind::UnknownPath => "There is no such path",
            ProblemKind::WrongMethod => "The path does not know this method",
            ProblemKind::StaleEpoch => "The epoch is not this lease's",
            ProblemKind::StaleSeq => "A later request was here first",
            ProblemKind::TooManyLeases => "There are too many leases",
            ProblemKind::TooManyConnections => "There are too many connections",
            ProblemKind::RestorePending => "A device is not back at default clocks yet",
            ProblemKind::ShuttingDown => "The agent is shutting down",
            ProblemKind::StateDirectory => "The state directory cannot be written",
        }
    }
}

impl Problem {
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: shortened(detail.into(), DETAIL_CHARS_MAX),
            field: None,
            given: None,
            allowed: None,
        }
    }

    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(shortened(field.into(), FIELD_CHARS_MAX));
        self
    }

    pub fn given(mut self, given: impl Into<Value>) -> Self {
        self.given = Some(given.into());
        self
    }

    pub fn allowed(mut self, allowed: impl Into<Value>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    pub fn body(&self) -> Value {
        let mut body = json!({
            "type": format!("urn:paceline:problem:{}", self.kind.name()),
            "title": self.kind.title(),
            "status": self.kind.status().as_u16(),
            "detail": self.detail,
        });
        let members = [
            ("field", self.field.clone().map(Value::String)),
            ("given", self.given.clone()),
            ("allowed", self.allowed.clone()),
        ];
        for (name, value) in members {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        body
    }
}

impl From<FieldError> for Problem {
    fn from(wrong: FieldError) -> Self {
        let mut problem = Problem::new(ProblemKind::BadRequest, wrong.to_string());
        if !wrong.field.is_empty() {
            problem = problem.at(wrong.field);
        }
        problem.given = wrong.given.map(quotable);
        problem.allowed = Some(Value::String(wrong.allowed));
        problem
    }
}
