//! The socket and what is said over it: PROTOCOL.md's requests in, answers and streams out. Decides nothing about clocks.

mod answer;
mod app;
mod bearer;
mod device_description;
mod device_routes;
mod hang_up;
mod lease_requests;
mod lease_routes;
mod metrics;
mod peer;
mod places;
mod problem;
mod query;
mod server;
mod socket;
mod tcp;

pub use app::{App, Mode};
pub use bearer::Refusals;
pub use peer::Peer;
pub use server::{Listeners, serve};
pub use socket::AgentSocket;
pub use tcp::bind as bind_tcp;
