//! Notices that the other end is gone, at once and whatever else the connection is doing. Hyper alone looks only while
//! it reads, and it stops reading while a pipelined request waits; a lease must not outlive its client for that.

use std::io;
use std::os::fd::AsFd;

use tokio::io::{Interest, Ready};
use tokio::net::{TcpStream, UnixStream};

/// A second descriptor of the same socket, to be asked about closing only. Nothing is read from it.
pub enum HangUp {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl HangUp {
    pub fn of_unix(stream: &UnixStream) -> io::Result<Self> {
        let descriptor = stream.as_fd().try_clone_to_owned()?;
        UnixStream::from_std(descriptor.into()).map(HangUp::Unix)
    }

    pub fn of_tcp(stream: &TcpStream) -> io::Result<Self> {
        let descriptor = stream.as_fd().try_clone_to_owned()?;
        TcpStream::from_std(descriptor.into()).map(HangUp::Tcp)
    }

    /// Returns once the peer has closed its side: killed, closed, or half-closed, which is an end of stream too. A TCP
    /// peer that vanished without a word is not noticed here; its lease's TTL is for that.
    pub async fn wait(&self) {
        loop {
            match self.ready().await {
                Ok(ready) if !ready.is_read_closed() => self.forget_readiness(),
                _ => return,
            }
        }
    }

    async fn ready(&self) -> io::Result<Ready> {
        match self {
            HangUp::Unix(socket) => socket.ready(Interest::READABLE).await,
            HangUp::Tcp(socket) => socket.ready(Interest::READABLE).await,
        }
    }

    /// Readable with data is hyper's business. "Would block" makes tokio forget this readiness (never the closing), so
    /// that the next edge wakes us.
    fn forget_readiness(&self) {
        let would_block = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = match self {
            HangUp::Unix(socket) => socket.try_io(Interest::READABLE, would_block),
            HangUp::Tcp(socket) => socket.try_io(Interest::READABLE, would_block),
        };
    }
}
