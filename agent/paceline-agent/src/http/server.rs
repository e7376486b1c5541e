//! Accepts connections, within bounds, and keeps each for as long as its client is there.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};

use super::app::App;
use super::hang_up::HangUp;
use super::peer::Peer;
use super::problem::{Problem, ProblemKind};
use crate::limits::{
    CONNECTIONS_MAX, CONNECTIONS_PER_UID_MAX, HEAD_BYTES_MAX, HEAD_READ_MAX, SHUTDOWN_STREAMS_MAX,
};

/// Out of descriptors, most likely: accepting again at once would spin.
const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(50);

/// Serves until the app closes, then lets the last lines of streams out.
pub async fn serve(app: Arc<App>, listener: UnixListener) {
    let places = Arc::new(Places::default());
    let mut closing = app.closing.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        match accepted {
            Ok((stream, _)) => welcome(&app, &places, stream),
            Err(wrong) => {
                tracing::warn!("accept: {wrong}");
                tokio::time::sleep(ACCEPT_RETRY_AFTER).await;
            }
        }
    }
    drop(listener);
    let all_left = async {
        while places.taken() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let _ = tokio::time::timeout(SHUTDOWN_STREAMS_MAX, all_left).await;
}

fn welcome(app: &Arc<App>, places: &Arc<Places>, stream: UnixStream) {
    let peer = match Peer::of(&stream) {
        Ok(peer) => Arc::new(peer),
        Err(wrong) => {
            tracing::warn!("a peer without credentials is not served: {wrong}");
            return;
        }
    };
    let Some(place) = Places::take(places, peer.uid) else {
        tracing::warn!(
            uid = peer.uid,
            pid = peer.pid,
            "too many connections, one is refused"
        );
        // A new socket's buffer has room for this; where it has not the client sees the closing alone.
        let _ = stream.try_write(too_many().as_bytes());
        return;
    };
    let app = Arc::clone(app);
    tokio::spawn(async move {
        if let Err(wrong) = keep(app, peer, stream).await {
            tracing::debug!("a connection ended: {wrong}");
        }
        drop(place);
    });
}

/// Written by hand: a connection that is not to be kept is not worth a server.
fn too_many() -> String {
    let wrong = format!(
        "the agent keeps {CONNECTIONS_MAX} connections, {CONNECTIONS_PER_UID_MAX} of one user; close one first"
    );
    let body = Problem::new(ProblemKind::TooManyConnections, wrong)
        .body()
        .to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Whatever ends this drops the connection, with it the bodies it was sending, with them their leases.
async fn keep(app: Arc<App>, peer: Arc<Peer>, stream: UnixStream) -> io::Result<()> {
    let hang_up = HangUp::of(&stream)?;
    let mut closing = app.closing.subscribe();
    let service = service_fn(move |request| {
        let app = Arc::clone(&app);
        let peer = Arc::clone(&peer);
        async move { Ok::<_, Infallible>(app.answer(peer, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_READ_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        () = hang_up.wait() => return Ok(()),
        _ = closing.wait_for(|closing| *closing) => {}
    }
    connection.as_mut().graceful_shutdown();
    let ended = tokio::time::timeout(SHUTDOWN_STREAMS_MAX, connection).await;
    ended.map_or(Ok(()), |ended| ended.map_err(io::Error::other))
}

/// Connections that are open, by user.
#[derive(Default)]
struct Places {
    by_uid: Mutex<HashMap<u32, usize>>,
}

struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Places {
    fn take(this: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut by_uid = this.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = by_uid.values().sum();
        let own = by_uid.get(&uid).copied().unwrap_or(0);
        if total >= CONNECTIONS_MAX || own >= CONNECTIONS_PER_UID_MAX {
            return None;
        }
        by_uid.insert(uid, own + 1);
        Some(Place {
            places: Arc::clone(this),
            uid,
        })
    }

    fn taken(&self) -> usize {
        let by_uid = self.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        by_uid.values().sum()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_uid = self.places.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = by_uid.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                by_uid.remove(&self.uid);
            }
        }
    }
}
