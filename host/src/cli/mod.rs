//! The command line: nouns, then verbs. It talks to a server over HTTP, but for `serve`, which is one, and `run`, which needs none.
//!
//! Invariants:
//! * answers go to stdout and everything else to stderr, so that `--output json` can be piped;
//! * exit codes: 0 done, 1 it failed (the job, the server, the request), 2 wrong usage (flags, job file), 130 interrupted;
//! * what comes from elsewhere is never written to a terminal with its control characters.

mod check;
mod client;
mod dead_letter;
mod doctor;
mod error;
mod guests;
mod job;
mod job_file;
mod logs;
mod module;
mod run;
mod savepoint;
mod serve;
mod terminal;
#[cfg(test)]
mod tests;

use crate::server::Wiring;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use client::Client;
use error::CliError;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
pub use terminal::Terminal;

/// Where `serve` listens unless told otherwise.
const SERVER_DEFAULT: &str = "http://127.0.0.1:8080";

/// Runs stream operators that people compiled to WebAssembly components, exactly once.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

#[derive(Debug, clap::Args)]
struct Global {
    /// The server to talk to: http://127.0.0.1:8080 unless said.
    #[arg(long, global = true, env = "TIDEGATE_SERVER", value_name = "URL")]
    server: Option<String>,
    /// The token to send: the first `write:` one of the file, else the first. For `serve`: the tokens to accept. A token alone can be
    /// given in TIDEGATE_TOKEN.
    #[arg(long, global = true, env = "TIDEGATE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificates to trust when the server has one of its own making, as PEM.
    #[arg(long, global = true, env = "TIDEGATE_CA_CERT", value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// How answers are written.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl Global {
    fn client(&self) -> Result<Client, CliError> {
        let mut client = Client::new(self.server.as_deref().unwrap_or(SERVER_DEFAULT), self.ca_cert.as_deref())?;
        if let Some(path) = &self.token_file {
            client.use_token(&client::token_of_file(path)?)?;
        } else if let Ok(token) = std::env::var("TIDEGATE_TOKEN") {
            client.use_token(token.trim())?;
        }
        Ok(client)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the HTTP API and run jobs.
    Serve(serve::ServeArgs),
    /// Run one job in the foreground, without a server.
    Run(run::RunArgs),
    /// Look a job file over, without a server or with one: modules, graph, paths. Exits with 2 where something is wrong.
    Check(check::CheckArgs),
    /// Look this machine and a data folder over: what would keep a host from running, and whether what is stored is sound.
    Doctor(doctor::DoctorArgs),
    /// Components that operators are made of.
    #[command(subcommand)]
    Module(module::ModuleCommand),
    /// Jobs on the server.
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Records that a job could not process.
    #[command(subcommand)]
    DeadLetter(dead_letter::DeadLetterCommand),
    /// Snapshots of a job's state that stay until you delete them.
    #[command(subcommand)]
    Savepoint(savepoint::SavepointCommand),
    /// The compiler, in a process that the host starts for itself.
    #[command(hide = true)]
    CompileWorker(guests::CompileWorkerArgs),
    /// Write a completion script for your shell.
    Completions { shell: clap_complete::Shell },
}

/// The whole program.
pub fn main(args: impl IntoIterator<Item = OsString>, wiring: &dyn Wiring, mut terminal: Terminal) -> ExitCode {
    ExitCode::from(exit_code(args, wiring, &mut terminal))
}

fn exit_code(args: impl IntoIterator<Item = OsString>, wiring: &dyn Wiring, terminal: &mut Terminal) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap, with code 0.
            terminal.clap(&error);
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    terminal.json = cli.global.output == Output::Json;
    match execute(cli, wiring, terminal) {
        Ok(code) => code,
        Err(error) => {
            terminal.error(&error);
            error.code()
        }
    }
}

fn execute(cli: Cli, wiring: &dyn Wiring, terminal: &mut Terminal) -> Result<u8, CliError> {
    let client = || cli.global.client();
    // Where a server is no must.
    let named = || cli.global.server.as_ref().map(|_| client()).transpose();
    match cli.command {
        Command::Serve(args) => return serve::serve(args, cli.global, wiring, terminal),
        Command::Run(args) => return run::run(args, wiring, terminal),
        Command::Check(args) => {
            return check::check(&args, named()?.as_ref(), wiring, terminal);
        }
        Command::Doctor(args) => {
            return doctor::doctor(&args, named()?.as_ref(), terminal);
        }
        Command::CompileWorker(args) => return Ok(wiring.compile_worker(args.limits())),
        Command::Module(command) => module::execute(command, &client()?, terminal)?,
        Command::Job(command) => job::execute(command, &client()?, terminal)?,
        Command::DeadLetter(command) => dead_letter::execute(command, &client()?, terminal)?,
        Command::Savepoint(command) => savepoint::execute(command, &client()?, terminal)?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut script);
            terminal.raw(&script);
        }
    }
    Ok(0)
}
