//! Notices that the other end is gone, at once and whatever else the connection is doing. Hyper alone looks only while
//! it reads, and it stops reading while a pipelined request waits; a lease must not outlive its client for that.

use std::io;
use std::os::fd::AsFd;

use tokio::io::Interest;
use tokio::net::UnixStream;

/// A second descriptor of the same socket, to be asked about closing only. Nothing is read from it.
pub struct HangUp {
    socket: UnixStream,
}

impl HangUp {
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let descriptor = stream.as_fd().try_clone_to_owned()?;
        Ok(Self {
            socket: UnixStream::from_std(descriptor.into())?,
        })
    }

    /// Returns once the peer has closed its side: killed, closed, or half-closed, which is an end of stream too.
    pub async fn wait(&self) {
        loop {
            match self.socket.ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => {}
                _ => return,
            }
            // Readable with data is hyper's business. "Would block" makes tokio forget this readiness (never the
            // closing), so that the next edge wakes us.
            let _ = self.socket.try_io(Interest::READABLE, || {
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
        }
    }
}
