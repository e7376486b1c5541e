//! Answers: whole bodies, and streams of lines that live for as long as somebody reads them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use serde_json::Value;
use tokio::sync::mpsc;

use super::problem::{Problem, ProblemKind};
use crate::limits::TOKEN_REFUSAL_EVERY;

pub type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

pub fn json(value: &Value) -> Answer {
    whole(StatusCode::OK, "application/json", value.to_string())
}

pub fn json_with(status: StatusCode, value: &Value) -> Answer {
    whole(status, "application/json", value.to_string())
}

pub fn text(content_type: &'static str, text: String) -> Answer {
    whole(StatusCode::OK, content_type, text)
}

pub fn nothing() -> Answer {
    let mut answer = Response::new(Full::default().boxed_unsync());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

pub fn problem(problem: &Problem, allow: Option<&'static str>) -> Answer {
    let body = problem.body().to_string();
    let mut answer = whole(problem.kind.status(), "application/problem+json", body);
    let headers = answer.headers_mut();
    if let Some(methods) = allow {
        headers.insert(ALLOW, HeaderValue::from_static(methods));
    }
    // Strangers are not kept: a guess costs them a connection.
    match problem.kind {
        ProblemKind::Unauthenticated => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        ProblemKind::TooManyAttempts => {
            headers.insert(RETRY_AFTER, HeaderValue::from(TOKEN_REFUSAL_EVERY.as_secs()));
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        ProblemKind::NotForBrowsers => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    answer
}

fn whole(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Lines come through the channel; `keep` lives until the stream ends or its reader is gone.
pub fn lines<K: Send + Unpin + 'static>(
    status: StatusCode,
    receiver: mpsc::Receiver<Bytes>,
    keep: K,
) -> Answer {
    let body = Lines {
        receiver,
        _keep: keep,
    };
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

pub fn line(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}

struct Lines<K> {
    receiver: mpsc::Receiver<Bytes>,
    _keep: K,
}

impl<K: Unpin> Body for Lines<K> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.receiver
            .poll_recv(context)
            .map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
