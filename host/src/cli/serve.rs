//! `tidegate serve`

use super::Global;
use super::error::CliError;
use super::guests::GuestArgs;
use super::terminal::{Colour, Terminal};
use crate::config::{HostConfig, HttpOptions, LISTEN_DEFAULT, is_exposed};
use crate::server::{self, HostError, Wiring};
use std::net::SocketAddr;
use std::path::PathBuf;
use tidegate_core::limits::HttpLimits;
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
    /// Asked to end, the host gives jobs this long for a last checkpoint. Asked again, it ends at once.
    #[arg(long, env = "TIDEGATE_SHUTDOWN_TIMEOUT", default_value = "30s", value_name = "DURATION", value_parser = shutdown_timeout)]
    shutdown_timeout: std::time::Duration,
    /// An OpenTelemetry collector (OTLP as JSON over HTTP): it gets a trace of each checkpoint. Off unless said.
    #[arg(long, env = "TIDEGATE_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    #[arg(long, env = "TIDEGATE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Certificate chain of the server, as PEM: serve https.
    #[arg(long, env = "TIDEGATE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Key of the certificate, as PEM.
    #[arg(long, env = "TIDEGATE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Serve /metrics to those who have no token, too.
    #[arg(long)]
    metrics_open: bool,
    /// Requests a second that one client may send; 0: any number.
    #[arg(long, env = "TIDEGATE_RATE_LIMIT", value_name = "N", default_value_t = HttpLimits::default().requests_per_second_max)]
    rate_limit: u32,
    /// Listen where others reach it without asking for a token: everyone there can run jobs here.
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    guests: GuestArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

pub fn serve(args: ServeArgs, global: Global, wiring: &dyn Wiring, terminal: &mut Terminal) -> Result<u8, CliError> {
    start_log(&args.log, args.log_format)?;
    if let Some(endpoint) = &args.otlp_endpoint {
        crate::traces::start(endpoint).map_err(CliError::usage)?;
    }
    let http = HttpOptions {
        token_file: global.token_file,
        tokens: std::env::var("TIDEGATE_TOKENS").ok().filter(|tokens| !tokens.is_empty()),
        tls_cert: args.tls_cert,
        tls_key: args.tls_key,
        metrics_open: args.metrics_open,
        insecure: args.insecure,
        rate_limit: Some(args.rate_limit),
    };
    // Before the data folder is touched: what can't be served must not leave anything behind.
    let http = http.resolve(&args.listen).map_err(HostError::from)?;
    let (scheme, is_open) = (if http.tls.is_some() { "https" } else { "http" }, http.access.is_open());
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
            "{name} {} listens on {scheme}://{address}, data in {}{jobs}",
            env!("CARGO_PKG_VERSION"),
            config.data.display()
        ));
        let warning = match (is_exposed(&address), is_open, scheme) {
            (true, true, _) => Some("anyone who reaches this address can run jobs here: no token is asked for (--insecure)"),
            (true, false, "http") => Some("tokens come in plain text: --tls-cert and --tls-key encrypt them"),
            _ => None,
        };
        if let Some(warning) = warning {
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
    let served = runtime.block_on(server::serve(&config, args.listen, http, wiring, announce, args.shutdown_timeout, end));
    // A task that did not end in time must not keep the process.
    runtime.shutdown_background();
    served?;
    Ok(0)
}

/// No longer than a service manager would wait.
const SHUTDOWN_TIMEOUT_MS_MAX: u64 = 3_600_000;

fn shutdown_timeout(text: &str) -> Result<std::time::Duration, String> {
    let ms = tidegate_core::units::parse_duration_ms(text).map_err(|error| error.to_string())?;
    if ms > SHUTDOWN_TIMEOUT_MS_MAX {
        return Err("at most 1h".into());
    }
    Ok(std::time::Duration::from_millis(ms))
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
