//! Where the agent listens on TCP, if it does: on this machine's loopback and nowhere else.

use std::net::{SocketAddr, TcpListener};

use crate::start_error::StartError;

/// Addresses only. What a name stands for is decided elsewhere, and may change to an address of the network.
pub fn bind(text: &str) -> Result<TcpListener, StartError> {
    let refused = |wrong: String| StartError::refused(format!("--tcp {text}: {wrong}"));
    let address = text.parse::<SocketAddr>().map_err(|_| {
        refused(
            "not an address and a port; wanted 127.0.0.1:PORT or [::1]:PORT, names are not looked up"
                .to_owned(),
        )
    })?;
    if !address.ip().is_loopback() {
        return Err(refused(
            "not a loopback address; wanted 127.0.0.1:PORT or [::1]:PORT. The token would cross the network in the \
             clear; for clients on other machines put something that speaks TLS in front"
                .to_owned(),
        ));
    }
    let listener = TcpListener::bind(address).map_err(|wrong| refused(wrong.to_string()))?;
    listener
        .set_nonblocking(true)
        .map_err(|wrong| refused(wrong.to_string()))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::bind;

    #[test]
    fn what_is_not_loopback_is_refused_and_says_so() {
        let cases = [
            ("0.0.0.0:0", "not a loopback address"),
            ("[::]:0", "not a loopback address"),
            ("192.168.0.1:0", "not a loopback address"),
            ("[::ffff:127.0.0.1]:0", "not a loopback address"),
            ("localhost:0", "names are not looked up"),
            ("127.0.0.1", "not an address and a port"),
            ("9500", "not an address and a port"),
        ];
        for (text, wanted) in cases {
            let wrong = bind(text).expect_err(text).to_string();
            assert!(
                wrong.starts_with(&format!("--tcp {text}:")) && wrong.contains(wanted),
                "{wrong}"
            );
        }
        assert!(bind("127.0.0.1:0").is_ok());
    }
}
