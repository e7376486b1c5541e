//! Who is at the other end of a connection: on the Unix socket as the kernel says (SO_PEERCRED), not as the client says;
//! over TCP as its token says.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use tokio::net::UnixStream;

use crate::principal::Principal;

#[derive(Clone, Debug)]
pub struct Peer {
    pub principal: Principal,
    /// For audit lines, as far as it is known.
    pub gid: Option<u32>,
    pub pid: Option<i32>,
    pub address: Option<SocketAddr>,
}

/// Linux's own bound is 65536; who is in more groups than this is judged by the first ones.
const GROUPS_MAX: usize = 1024;

impl Peer {
    pub fn of_unix(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let mut gids = vec![credentials.gid()];
        gids.extend(supplementary_groups(stream));
        Ok(Self {
            principal: Principal::User {
                uid: credentials.uid(),
                gids,
            },
            gid: Some(credentials.gid()),
            pid: credentials.pid(),
            address: None,
        })
    }

    pub fn of_tcp(principal: Principal, address: SocketAddr) -> Self {
        Self {
            principal,
            gid: None,
            pid: None,
            address: Some(address),
        }
    }
}

/// SO_PEERCRED tells the primary group only, and membership in a group is how users are usually let in. Empty where the
/// kernel does not tell (before Linux 4.13): then less is allowed, never more.
#[allow(unsafe_code)]
fn supplementary_groups(stream: &UnixStream) -> Vec<u32> {
    let mut groups = vec![0 as libc::gid_t; GROUPS_MAX];
    let mut bytes =
        libc::socklen_t::try_from(size_of_val(groups.as_slice())).expect("a few kilobytes fit a socklen_t");
    // SAFETY: the kernel writes at most `bytes` bytes into `groups`, which is that long and outlives the call.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if result != 0 {
        return Vec::new();
    }
    groups.truncate(bytes as usize / size_of::<libc::gid_t>());
    groups
}
