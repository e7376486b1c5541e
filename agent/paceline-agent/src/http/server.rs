//! Accepts connections, within bounds, and keeps each for as long as its client is there.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::answer::Answer;
use super::app::App;
use super::hang_up::HangUp;
use super::peer::Peer;
use super::places::{Place, Places, too_many};
use crate::limits::{HEAD_BYTES_MAX, HEAD_READ_MAX, HEAD_READ_UNPROVEN_MAX, SHUTDOWN_STREAMS_MAX};

/// Out of descriptors, most likely: accepting again at once would spin.
const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(50);

pub struct Listeners {
    pub unix: UnixListener,
    pub tcp: Option<TcpListener>,
}

enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream, SocketAddr),
}

/// Who speaks on a connection.
enum Caller {
    /// As the kernel said when it connected.
    Known(Arc<Peer>),
    /// Every request says it anew.
    Tcp { address: SocketAddr },
}

/// Serves until the app closes, then lets the last lines of streams out.
pub async fn serve(app: Arc<App>, listeners: Listeners) {
    let places = Arc::new(Places::default());
    let mut closing = app.closing.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listeners.accept() => accepted,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        match accepted {
            Ok(Accepted::Unix(stream)) => welcome_unix(&app, &places, stream),
            Ok(Accepted::Tcp(stream, address)) => welcome_tcp(&app, &places, stream, address),
            Err(wrong) => {
                tracing::warn!("accept: {wrong}");
                tokio::time::sleep(ACCEPT_RETRY_AFTER).await;
            }
        }
    }
    drop(listeners);
    let all_left = async {
        while places.taken() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let _ = tokio::time::timeout(SHUTDOWN_STREAMS_MAX, all_left).await;
}

impl Listeners {
    async fn accept(&self) -> io::Result<Accepted> {
        let tcp = async {
            match &self.tcp {
                Some(listener) => listener.accept().await,
                None => pending().await,
            }
        };
        tokio::select! {
            accepted = self.unix.accept() => accepted.map(|(stream, _)| Accepted::Unix(stream)),
            accepted = tcp => accepted.map(|(stream, address)| Accepted::Tcp(stream, address)),
        }
    }
}

fn welcome_unix(app: &Arc<App>, places: &Arc<Places>, stream: UnixStream) {
    let peer = match Peer::of_unix(&stream) {
        Ok(peer) => Arc::new(peer),
        Err(wrong) => {
            tracing::warn!("a peer without credentials is not served: {wrong}");
            return;
        }
    };
    match Places::take(places, Some(&peer.principal)) {
        Some(place) => {
            let hang_up = HangUp::of_unix(&stream);
            spawn_keep(Arc::clone(app), Caller::Known(peer), place, hang_up, stream);
        }
        None => {
            tracing::warn!(peer = %peer.principal, "too many connections, one is refused");
            // A new socket's buffer has room for this; where it has not the client sees the closing alone.
            let _ = stream.try_write(refusal().as_bytes());
        }
    }
}

fn welcome_tcp(app: &Arc<App>, places: &Arc<Places>, stream: TcpStream, address: SocketAddr) {
    // Answers and heartbeats are small and must not wait for each other.
    let _ = stream.set_nodelay(true);
    match Places::take(places, None) {
        Some(place) => {
            let hang_up = HangUp::of_tcp(&stream);
            spawn_keep(Arc::clone(app), Caller::Tcp { address }, place, hang_up, stream);
        }
        None => {
            tracing::warn!(%address, "too many connections, one is refused");
            let _ = stream.try_write(refusal().as_bytes());
        }
    }
}

fn spawn_keep<S>(app: Arc<App>, caller: Caller, place: Place, hang_up: io::Result<HangUp>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        let kept = match hang_up {
            Ok(hang_up) => keep(app, caller, place, &hang_up, stream).await,
            Err(wrong) => Err(wrong),
        };
        if let Err(wrong) = kept {
            tracing::debug!("a connection ended: {wrong}");
        }
    });
}

/// Written by hand: a connection that is not to be kept is not worth a server.
fn refusal() -> String {
    let body = too_many().body().to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Whatever ends this drops the connection, with it the bodies it was sending, with them their leases.
async fn keep<S>(app: Arc<App>, caller: Caller, place: Place, hang_up: &HangUp, stream: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut closing = app.closing.subscribe();
    let place = Arc::new(place);
    let unproven = give_up_unproven(Arc::clone(&place));
    let caller = Arc::new(caller);
    let service = service_fn(move |request| {
        let (app, caller, place) = (Arc::clone(&app), Arc::clone(&caller), Arc::clone(&place));
        async move { Ok::<_, Infallible>(answer(app, &caller, &place, request).await) }
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
        () = unproven => return Ok(()),
        _ = closing.wait_for(|closing| *closing) => {}
    }
    connection.as_mut().graceful_shutdown();
    let ended = tokio::time::timeout(SHUTDOWN_STREAMS_MAX, connection).await;
    ended.map_or(Ok(()), |ended| ended.map_err(io::Error::other))
}

async fn answer(app: Arc<App>, caller: &Caller, place: &Place, request: Request<Incoming>) -> Answer {
    match caller {
        Caller::Known(peer) => app.answer(peer, request).await,
        Caller::Tcp { address } => app.answer_tcp(*address, place, request).await,
    }
}

/// Returns where no token was shown in time; never where one was.
async fn give_up_unproven(place: Arc<Place>) {
    tokio::time::sleep(HEAD_READ_UNPROVEN_MAX).await;
    if place.is_proven() {
        pending().await
    }
}
