//! The socket and what is said over it: PROTOCOL.md's requests in, answers and streams out. Decides nothing about clocks.

mod answer;
mod app;
mod device_routes;
mod hang_up;
mod lease_requests;
mod lease_routes;
mod metrics;
mod peer;
mod problem;
mod query;
mod server;
mod socket;

pub use app::{App, Mode};
pub use peer::Peer;
pub use server::serve;
pub use socket::AgentSocket;
