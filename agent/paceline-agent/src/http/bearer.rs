//! Requests that come over loopback TCP: whose token they carry, and that no browser sent them. Every process of the
//! machine can connect there, and every page in a browser can try to.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use hyper::http::uri::Authority;
use hyper::{Method, Request};

use super::problem::{Problem, ProblemKind};
use crate::access::Access;
use crate::audit;
use crate::limits::{TOKEN_REFUSAL_EVERY, TOKEN_REFUSALS_BURST};
use crate::principal::Principal;

/// `GET /healthz` says only that somebody listens, which whoever can ask knows by then.
pub fn needs_no_token(request: &Request<Incoming>) -> bool {
    request.method() == Method::GET && request.uri().path() == "/healthz"
}

/// A page that a browser shows has an origin and says so. One that has talked the browser's DNS into taking us for its
/// own server has none, but then the host it names is not ours.
pub fn refuse_browsers(request: &Request<Incoming>) -> Result<(), Problem> {
    if let Some(origin) = request.headers().get(ORIGIN) {
        let origin = String::from_utf8_lossy(origin.as_bytes()).into_owned();
        let wrong = "a request with an origin comes from a browser, and none has business here";
        let problem = Problem::new(ProblemKind::NotForBrowsers, wrong).at("origin");
        return Err(problem.given(origin).allowed("no such header"));
    }
    let named = header(request, HOST)?;
    let in_target = request.uri().authority().map(Authority::as_str);
    match named.into_iter().chain(in_target).find(|host| !is_loopback(host)) {
        Some(host) => {
            let allowed = "localhost, or a loopback address";
            let wrong = format!("host: got {host:?}, wanted {allowed}");
            let problem = Problem::new(ProblemKind::NotForBrowsers, wrong).at("host");
            Err(problem.given(host).allowed(allowed))
        }
        None if named.is_none() => {
            let wrong = "host: missing, wanted localhost, or a loopback address";
            Err(Problem::new(ProblemKind::BadRequest, wrong).at("host"))
        }
        None => Ok(()),
    }
}

pub fn authenticate(access: &Access, request: &Request<Incoming>) -> Result<Principal, Problem> {
    let allowed = "Authorization: Bearer and a token of --tcp-token-file";
    // Never what was given: it may be the right token of another machine.
    let refused = |wrong: &str| {
        let problem = Problem::new(ProblemKind::Unauthenticated, format!("{wrong}; wanted {allowed}"));
        problem.at("authorization").allowed(allowed)
    };
    let given = header(request, AUTHORIZATION)?.ok_or_else(|| refused("no token"))?;
    let token = match given.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => return Err(refused("not a bearer token")),
    };
    let rules = access.rules();
    let name = rules
        .tokens
        .name_of(token)
        .ok_or_else(|| refused("nobody's token"))?;
    Ok(Principal::Token {
        name: name.to_owned(),
    })
}

/// `None` where it is not there, refused where it is there twice.
fn header(request: &Request<Incoming>, name: HeaderName) -> Result<Option<&str>, Problem> {
    let mut values = request.headers().get_all(&name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) if values.next().is_none() => Ok(Some(text)),
        _ => {
            let wrong = format!("{name}: wanted once, in ASCII");
            let problem = Problem::new(ProblemKind::BadRequest, wrong).at(name.as_str());
            Err(problem.allowed("once, in ASCII"))
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host();
    let address = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Counts refused tokens, and bounds what they may write: whoever guesses must not fill the disk with audit lines. The
/// right token is never held up by the wrong ones of others.
pub struct Refusals {
    state: Mutex<State>,
}

struct State {
    total: u64,
    /// Not written since the last line that was.
    unwritten: u64,
    credit: u32,
    credited_at: Instant,
}

impl Refusals {
    pub fn new(now: Instant) -> Self {
        Self {
            state: Mutex::new(State {
                total: 0,
                unwritten: 0,
                credit: TOKEN_REFUSALS_BURST,
                credited_at: now,
            }),
        }
    }

    pub fn total(&self) -> u64 {
        self.lock().total
    }

    /// The refusal to answer with: the one given, or that there were too many.
    pub fn refuse(&self, problem: Problem, address: SocketAddr, method: &Method, path: &str) -> Problem {
        let unwritten = self.lock().count(Instant::now());
        let Some(unwritten) = unwritten else {
            let every_ms = u64::try_from(TOKEN_REFUSAL_EVERY.as_millis()).unwrap_or(u64::MAX);
            let wrong = format!(
                "{TOKEN_REFUSALS_BURST} requests without a good token at once, then one every {every_ms} ms; \
                 requests with a good one are not held up"
            );
            return Problem::new(ProblemKind::TooManyAttempts, wrong).allowed(TOKEN_REFUSALS_BURST);
        };
        let status = problem.kind.status().as_u16();
        let name = problem.kind.name();
        audit::token_refused(
            address,
            method.as_str(),
            path,
            status,
            name,
            &problem.detail,
            unwritten,
        );
        problem
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How many went unwritten before this one, or `None` where this one does too.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.total += 1;
        let passed = now.saturating_duration_since(self.credited_at);
        let earned = passed.as_nanos() / TOKEN_REFUSAL_EVERY.as_nanos();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned > 0 {
            self.credit = self.credit.saturating_add(earned).min(TOKEN_REFUSALS_BURST);
            self.credited_at = now;
        }
        if self.credit == 0 {
            self.unwritten += 1;
            return None;
        }
        self.credit -= 1;
        Some(std::mem::take(&mut self.unwritten))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_of_this_machine_are_its_own() {
        let cases = [
            ("localhost", true),
            ("LocalHost:9500", true),
            ("127.0.0.1:9500", true),
            ("127.8.9.1", true),
            ("[::1]:9500", true),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("evil.example:9500", false),
            ("user@localhost", false),
            ("[::ffff:127.0.0.1]", false),
            ("0.0.0.0", false),
            ("", false),
        ];
        for (host, wanted) in cases {
            assert_eq!(is_loopback(host), wanted, "{host}");
        }
    }

    #[test]
    fn refusals_beyond_the_burst_are_counted_and_told_with_the_next_line() {
        let start = Instant::now();
        let refusals = Refusals::new(start);
        let count = |now| refusals.lock().count(now);
        for _ in 0..TOKEN_REFUSALS_BURST {
            assert_eq!(count(start), Some(0));
        }
        assert_eq!((count(start), count(start)), (None, None));
        assert_eq!(count(start + TOKEN_REFUSAL_EVERY), Some(2));
        assert_eq!(count(start + TOKEN_REFUSAL_EVERY), None);
        assert_eq!(refusals.total(), u64::from(TOKEN_REFUSALS_BURST) + 4);
    }
}
