//! `tidegate dead-letter ...`

use super::client::{Client, segment};
use super::error::CliError;
use super::job::{self, job_path};
use super::terminal::{Terminal, event_time, printable, time};
use crate::api::{DeadLetter, DeadLetterPage, ReplayRequest, ReplayView};
use clap::{Args, Subcommand};
use serde_json::Value;
use std::path::PathBuf;
use tidegate_core::units::parse_duration_ms;

#[derive(Debug, Subcommand)]
pub enum DeadLetterCommand {
    /// Records that could not be processed, newest first.
    List(ListArgs),
    /// One of them, with all that is known about it.
    Show { job: String, id: String },
    /// Its value, byte by byte.
    Fetch {
        job: String,
        id: String,
        /// Where to; else stdout.
        #[arg(long, short, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Send them back into the job, to the operator that gave them up.
    Replay(ChooseArgs),
    /// Be done with them: they are not replayed by `--all` any more.
    Discard(ChooseArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    pub job: String,
    /// At most so many.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// Go on from here: the last line of a page names it.
    #[arg(long, value_name = "ID")]
    pub before: Option<String>,
    /// Only of this operator (or source).
    #[arg(long)]
    pub operator: Option<String>,
}

#[derive(Debug, Args)]
pub struct ChooseArgs {
    job: String,
    /// These letters.
    #[arg(value_name = "ID", conflicts_with_all = ["all", "operator", "older_than", "newer_than"])]
    ids: Vec<String>,
    /// All that are open.
    #[arg(long)]
    all: bool,
    /// All open ones of this operator.
    #[arg(long)]
    operator: Option<String>,
    /// All open ones that are older, as in `2h`.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older_than: Option<u64>,
    /// All open ones that are newer, as in `10m`.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    newer_than: Option<u64>,
    /// Also those that were replayed or discarded before.
    #[arg(long)]
    force: bool,
    /// Only say which they would be.
    #[arg(long)]
    dry_run: bool,
}

fn duration(text: &str) -> Result<u64, String> {
    parse_duration_ms(text).map_err(|error| error.to_string())
}

pub fn execute(command: DeadLetterCommand, client: &Client, terminal: &mut Terminal) -> Result<(), CliError> {
    match command {
        DeadLetterCommand::List(args) => list(&args, client, terminal),
        DeadLetterCommand::Show { job, id } => {
            let letter: DeadLetter = client.get(&letter_path(&job, &id))?;
            if !terminal.as_json(&letter) {
                show(&letter, terminal);
            }
            Ok(())
        }
        DeadLetterCommand::Fetch { job, id, out } => {
            let bytes = client.get_bytes(&format!("{}/value", letter_path(&job, &id)))?;
            match out {
                Some(path) => {
                    std::fs::write(&path, &bytes).map_err(|e| CliError::failed(format!("write {}: {e}", path.display())))?;
                    terminal.note(format!("{} bytes to {}", bytes.len(), path.display()));
                }
                None => terminal.raw(&bytes),
            }
            Ok(())
        }
        DeadLetterCommand::Replay(args) => choose(args, "replay", client, terminal),
        DeadLetterCommand::Discard(args) => choose(args, "discard", client, terminal),
    }
}

fn letter_path(job: &str, id: &str) -> String {
    format!("{}/dead-letters/{}", job_path(job), segment(id))
}

pub fn list(args: &ListArgs, client: &Client, terminal: &mut Terminal) -> Result<(), CliError> {
    let mut path = format!("{}/dead-letters?limit={}", job_path(&args.job), args.limit);
    for (name, value) in [("before", &args.before), ("operator", &args.operator)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", segment(value)));
        }
    }
    let page: DeadLetterPage = client.get(&path)?;
    if !terminal.as_json(&page) {
        job::dead_letters(&page, terminal);
    }
    Ok(())
}

fn show(letter: &DeadLetter, terminal: &mut Terminal) {
    let mut line = |name: &str, value: String| terminal.line(printable(&format!("{name:<12} {value}")));
    line("letter", letter.id.clone());
    if let Some(state) = &letter.state {
        line("state", state.to_string().trim_start_matches("is ").to_owned());
    }
    line("kind", letter.kind.clone());
    line("reason", letter.reason.clone());
    line("operator", format!("{} (task {})", letter.operator, letter.row.get("task").unwrap_or(&Value::Null)));
    if let Some(module) = &letter.module {
        line("module", format!("{module} {}", letter.digest.as_deref().unwrap_or_default()));
    }
    line("from", job::place(letter));
    line("processed", time(letter.processing_time_ms));
    let number = |name: &str| letter.row.get(name).and_then(Value::as_i64);
    if let Some(watermark) = number("watermark") {
        line("watermark", event_time(Some(watermark)));
    }
    line("value", job::value(letter));
    for frame in letter.row.get("backtrace").and_then(Value::as_array).into_iter().flatten() {
        line("", frame.as_str().unwrap_or_default().to_owned());
    }
}

fn choose(args: ChooseArgs, verb: &str, client: &Client, terminal: &mut Terminal) -> Result<(), CliError> {
    let ago = |ms: u64| crate::api::now_ms().saturating_sub(ms);
    let request = ReplayRequest {
        ids: args.ids,
        operator: args.operator,
        after_ms: args.newer_than.map(ago),
        before_ms: args.older_than.map(ago),
        all: args.all,
        force: args.force,
        dry_run: args.dry_run,
    };
    let view: ReplayView = client.post(&format!("{}/dead-letters/{verb}", job_path(&args.job)), &request)?;
    if terminal.as_json(&view) {
        return Ok(());
    }
    let would = if view.dry_run { "would " } else { "" };
    match view.request {
        Some(number) => terminal.line(format!("{verb}: {} letters, request {number}", view.letters)),
        None => terminal.line(format!("{would}{verb}: {} letters", view.letters)),
    }
    for id in view.ids.iter().filter(|_| view.dry_run) {
        terminal.line(printable(&format!("  {id}")));
    }
    for (state, letters) in &view.left_out {
        terminal.note(format!("left out: {letters} {state}"));
    }
    if view.more {
        terminal.note("there are more than one request takes: ask again");
    }
    if view.waits_for_start {
        terminal.note(format!("the job does not run and reads them when it starts: tidegate job start {}", args.job));
    }
    Ok(())
}
