//! `paceline-agent check`: asks a running agent how it is, for probes and scripts. Its socket is a file, so what asks
//! over TCP or HTTP cannot.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::CheckOptions;
use crate::limits::{CHECK_BYTES_MAX, CHECK_WAIT_MAX};
use crate::start_error::StartError;

pub fn run(options: &CheckOptions) -> Result<ExitCode, StartError> {
    let path = if options.ready { "/readyz" } else { "/healthz" };
    let answer = ask(&options.socket, path).map_err(|wrong| {
        StartError::unavailable(format!("--socket {}: {wrong}", options.socket.display()))
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    println!("{body}");
    let is_good = head.split(' ').nth(1) == Some("200");
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The whole answer, as text.
fn ask(socket: &Path, path: &str) -> Result<String, String> {
    let mut stream = UnixStream::connect(socket).map_err(|wrong| wrong.to_string())?;
    let waits = Some(Duration::from_millis(CHECK_WAIT_MAX));
    let asked = stream
        .set_read_timeout(waits)
        .and_then(|()| stream.set_write_timeout(waits))
        .and_then(|()| {
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n"
            )
        });
    asked.map_err(|wrong| wrong.to_string())?;
    let mut answer = String::new();
    let read = stream.take(CHECK_BYTES_MAX).read_to_string(&mut answer);
    read.map_err(|wrong| format!("no answer within {CHECK_WAIT_MAX} ms: {wrong}"))?;
    Ok(answer)
}
