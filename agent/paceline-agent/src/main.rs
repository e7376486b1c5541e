//! `paceline-agent`: argv to one of its commands, and its result to an exit status.

mod access;
mod arbiter;
mod audit;
mod check;
mod cli;
mod control;
mod device;
mod device_thread;
mod driver;
mod epoch;
mod http;
mod journal;
mod json_fields;
mod limits;
mod log;
#[cfg(test)]
mod model;
mod panic_restore;
mod policy;
mod principal;
mod privilege;
mod probe;
mod readback;
mod restore;
mod sampler;
mod sentinel;
mod serve;
mod start_error;
mod state_dir;
mod tokens;
mod trusted_file;
mod write_stats;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use start_error::StartError;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(options) if options.worker_of.is_some() || options.no_sentinel => serve::run(&options),
        Command::Serve(options) => sentinel::run(&options),
        Command::Restore(options) => restore::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Probe(options) => probe::run(&options),
        Command::Completions(options) => Ok(cli::write_completions(&options)),
    };
    let code = result.unwrap_or_else(|wrong: StartError| {
        // On stderr as plain text: whoever started it by hand reads this, and a journal takes it as well.
        eprintln!("paceline-agent: {wrong}");
        ExitCode::from(wrong.exit_code())
    });
    log::flush();
    code
}
