//! `tidegate serve`

use super::error::CliError;
use super::guests::GuestArgs;
use super::terminal::{Colour, Terminal};
use crate::config::{HostConfig, LISTEN_DEFAULT, is_exposed};
use crate::server::{self, HostError, Wiring};
use std::net::SocketAddr;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Where modules, jobs, checkpoints and savepoints are kept.
    #[arg(long, env = "TIDEGATE_DATA", default_value = "tidegate-data", value_name = "DIR")]
    data: PathBuf,
    /// Where to listen. Port 0 takes any that is free.
    #[arg(long, env = "TIDEGATE_LISTEN", default_value = LISTEN_DEFAULT, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Relative paths in jobs begin in this folder.
    #[arg(long, env = "TIDEGATE_BASE", default_value = ".", value_name = "DIR")]
    base: PathBuf,
    /// What is logged, as in `info` or `warn,tidegate=debug`.
    #[arg(long, env = "TIDEGATE_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    #[arg(long, env = "TIDEGATE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(flatten)]
    guests: GuestArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

pub fn serve(args: ServeArgs, wiring: &dyn Wiring, terminal: &mut Terminal) -> Result<u8, CliError> {
    start_log(&args.log, args.log_format)?;
    let mut config = HostConfig::resolve(&args.data, &args.base).map_err(HostError::from)?;
    args.guests.apply(&mut config);
    let runtime = threads()?;
    let announce = |address: SocketAddr, manager: &crate::job_manager::JobManager| {
        let running = manager.jobs().iter().filter(|job| !job.status.state.is_terminal()).count();
        let jobs = match running {
            0 => String::new(),
            1 => ", 1 job comes back".to_owned(),
            n => format!(", {n} jobs come back"),
        };
        let name = terminal.paint("tidegate", Colour::Bold);
        terminal.line(format!(
            "{name} {} listens on http://{address}, data in {}{jobs}",
            env!("CARGO_PKG_VERSION"),
            config.data.display()
        ));
        if is_exposed(&address) {
            let warning = "anyone who reaches this address can run jobs here: there is no authentication yet";
            terminal.note(format!("{}: {warning}", terminal.paint("warning", Colour::Yellow)));
        }
    };
    let end = async {
        server::end_asked().await;
        // Whoever asks again does not want to wait.
        tokio::spawn(async {
            server::end_asked().await;
            std::process::exit(130);
        });
    };
    let served = runtime.block_on(server::serve(&config, args.listen, wiring, announce, end));
    // A task that did not end in time must not keep the process.
    runtime.shutdown_background();
    served?;
    Ok(0)
}

pub fn threads() -> Result<tokio::runtime::Runtime, CliError> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(HostError::Threads)?)
}

pub fn start_log(filter: &str, format: LogFormat) -> Result<(), CliError> {
    let wrong = |e: tracing_subscriber::filter::ParseError| CliError::usage(format!("log filter `{filter}`: {e}"));
    let filter = EnvFilter::try_new(filter).map_err(wrong)?;
    let colour = super::terminal::colour_on(&std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    // An error means that there is a log already, as in tests.
    let _ = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    Ok(())
}
