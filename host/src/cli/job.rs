//! `tidegate job ...`

use super::client::{Client, segment};
use super::error::CliError;
use super::job_file::JobFile;
use super::module::module_path;
use super::terminal::{
    self, Cell, Colour, Table, Terminal, bytes, count, duration, event_time, micros, number, share, short, text, time,
};
use crate::api::{
    CheckpointList, CheckpointReport, DeadLetter, DeadLetterPage, DesiredState, JobList, JobState, JobView, OperationView,
    StartFrom, StartRequest, StopRequest,
};
use crate::durable_file::unique_id;
use clap::Subcommand;
use std::path::PathBuf;
use tidegate_core::checkpoint::CheckpointStatus;

#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Create a job from its file and start it. The same file again changes nothing; another one replaces a job that is stopped.
    Create {
        /// The job, as TOML or JSON. Modules may be named by the paths of their components.
        file: PathBuf,
        /// Only store it; `job start` starts it.
        #[arg(long)]
        no_start: bool,
    },
    /// All jobs.
    List,
    /// How a job is doing.
    Show { job: String },
    /// End a job's run. It can be started again.
    Stop {
        job: String,
        /// Take a savepoint as the last thing.
        #[arg(long)]
        savepoint: bool,
        /// Fire all timers first, as if the input had come to its end.
        #[arg(long, requires = "savepoint")]
        drain: bool,
        /// Do not wait for the end.
        #[arg(long)]
        no_wait: bool,
    },
    /// Start a job that is stopped.
    Start {
        job: String,
        /// Where to begin: `latest` (the last checkpoint), `fresh` (from nothing) or a savepoint's id or path.
        #[arg(long, default_value = "latest", value_name = "latest|fresh|SAVEPOINT")]
        from: String,
    },
    /// Remove a job with its checkpoints and dead letters.
    Delete {
        job: String,
        /// Stop it first if it is running.
        #[arg(long)]
        force: bool,
        /// Its savepoints go too.
        #[arg(long)]
        with_savepoints: bool,
    },
    /// The last checkpoints.
    Checkpoints { job: String },
    /// Records that could not be processed, newest first.
    DeadLetters {
        job: String,
        /// At most so many.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Go on from here: the last line of a page names it.
        #[arg(long, value_name = "ID")]
        before: Option<String>,
        /// Only of this operator (or source).
        #[arg(long)]
        operator: Option<String>,
    },
}

pub fn job_path(job: &str) -> String {
    format!("/v1/jobs/{}", segment(job))
}

pub fn execute(command: JobCommand, client: &Client, terminal: &mut Terminal) -> Result<(), CliError> {
    match command {
        JobCommand::Create { file, no_start } => create(&file, no_start, client, terminal),
        JobCommand::List => list(client, terminal),
        JobCommand::Show { job } => {
            let view: JobView = client.get(&job_path(&job))?;
            if !terminal.as_json(&view) {
                show(&view, terminal);
            }
            Ok(())
        }
        JobCommand::Stop { job, savepoint, drain, no_wait } => {
            let request = StopRequest { savepoint, drain, operation: Some(unique_id()) };
            let operation: OperationView = client.post(&format!("{}/stop", job_path(&job)), &request)?;
            let doing = if savepoint { format!("stopping {job} with a savepoint") } else { format!("stopping {job}") };
            let operation = if no_wait { operation } else { client.finish(operation, terminal, &doing)? };
            if terminal.as_json(&operation) {
                return Ok(());
            }
            match (&operation.savepoint, no_wait) {
                (_, true) => terminal.line(format!("stopping {job}: {}{}", client.server(), operation.path())),
                (Some(savepoint), _) => {
                    terminal.line(format!("stopped {job} at savepoint {} ({})", savepoint.id, bytes(savepoint.bytes)));
                    terminal.note(format!("start it from there: tidegate job start {job} --from {}", savepoint.id));
                }
                (None, _) => terminal.line(format!("stopped {job}")),
            }
            Ok(())
        }
        JobCommand::Start { job, from } => {
            let from = match from.as_str() {
                "latest" => StartFrom::Latest,
                "fresh" => StartFrom::Fresh,
                _ => StartFrom::Savepoint(from),
            };
            let view: JobView = client.post(&format!("{}/start", job_path(&job)), &StartRequest { from })?;
            if !terminal.as_json(&view) {
                terminal.line(format!("{job} is {}", state_now(&view)));
            }
            Ok(())
        }
        JobCommand::Delete { job, force, with_savepoints } => {
            {
                let _spinner = terminal.spinner(format!("deleting {job}"));
                client.delete(&format!("{}?force={force}&savepoints={with_savepoints}", job_path(&job)))?;
            }
            let savepoints = if with_savepoints { "" } else { "; its savepoints stay (--with-savepoints)" };
            terminal.note(format!("deleted {job}{savepoints}"));
            Ok(())
        }
        JobCommand::Checkpoints { job } => {
            let list: CheckpointList = client.get(&format!("{}/checkpoints", job_path(&job)))?;
            if !terminal.as_json(&list) {
                checkpoints(&list.checkpoints, terminal);
            }
            Ok(())
        }
        JobCommand::DeadLetters { job, limit, before, operator } => {
            let mut path = format!("{}/dead-letters?limit={limit}", job_path(&job));
            for (name, value) in [("before", before), ("operator", operator)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", segment(&value)));
                }
            }
            let page: DeadLetterPage = client.get(&path)?;
            if !terminal.as_json(&page) {
                dead_letters(&page, terminal);
            }
            Ok(())
        }
    }
}

fn create(file: &std::path::Path, no_start: bool, client: &Client, terminal: &mut Terminal) -> Result<(), CliError> {
    let mut job = JobFile::read(file)?;
    job.push_modules(terminal, |name, version, bytes| {
        client.put_bytes(&module_path(name, version), bytes.len() as u64, bytes.as_slice())
    })?;
    let query = if no_start { "?start=false" } else { "" };
    let (view, created): (JobView, bool) = client.put(&format!("{}{query}", job_path(&job.name)), &job.source)?;
    if terminal.as_json(&view) {
        return Ok(());
    }
    let done = if created { "created" } else { "stored" };
    terminal.line(format!("{done} {}: it is {}", view.name, state_now(&view)));
    if !created && view.status.state.is_terminal() {
        terminal.note(format!("start it with: tidegate job start {}", view.name));
    }
    Ok(())
}

/// A run that was asked for a moment ago has not come to `starting` yet.
fn state_now(view: &JobView) -> JobState {
    match (view.status.state, view.desired) {
        (JobState::Created, DesiredState::Running) => JobState::Starting,
        (state, _) => state,
    }
}

fn state(state: JobState) -> Cell {
    text(state.name()).colour(terminal::state_colour(state))
}

fn list(client: &Client, terminal: &mut Terminal) -> Result<(), CliError> {
    let list: JobList = client.get("/v1/jobs")?;
    if terminal.as_json(&list) {
        return Ok(());
    }
    if list.jobs.is_empty() {
        terminal.note("no jobs yet: tidegate job create FILE");
        return Ok(());
    }
    let mut table = Table::new(["JOB", "STATE", "ATTEMPT", "TASKS", "UP", "WATERMARK", "ERROR"]);
    for job in &list.jobs {
        let status = &job.status;
        table.row([
            text(&job.name),
            state(status.state),
            number(status.attempt.to_string()),
            number(status.tasks.len().to_string()),
            number(if status.state.is_terminal() { "-".into() } else { duration(status.uptime_ms) }),
            text(event_time(status.watermark)),
            text(shortened(status.error.as_deref().unwrap_or(""), 60)),
        ]);
    }
    terminal.table(&table);
    Ok(())
}

fn shortened(text: &str, max: usize) -> String {
    if text.chars().count() <= max { text.to_owned() } else { text.chars().take(max - 3).chain("...".chars()).collect() }
}

fn show(view: &JobView, terminal: &mut Terminal) {
    let status = &view.status;
    let painted = terminal.paint(status.state.name(), terminal::state_colour(status.state));
    let mut headline = format!("{} is {painted}", view.name);
    if !status.state.is_terminal() {
        headline.push_str(&format!(" (attempt {}, up {})", status.attempt, duration(status.uptime_ms)));
    }
    terminal.line(headline);
    terminal.line(format!("  id         {}", view.job_id));
    terminal.line(format!("  created    {}", time(view.created_ms)));
    terminal.line(format!("  watermark  {}", event_time(status.watermark)));
    if let Some(error) = &status.error {
        terminal.line(format!("  error      {}", terminal::printable(error)));
    }
    if let Some(ended) = &view.ended {
        let savepoint = ended.savepoint.as_ref().map(|id| format!(", savepoint {id}")).unwrap_or_default();
        terminal.line(format!("  ended      {} as {}{savepoint}", time(ended.at_ms), ended.state));
    }
    for (operator, digest) in &view.modules {
        terminal.line(format!("  module     {} of {}", short(digest), terminal::printable(operator)));
    }
    if status.tasks.is_empty() {
        return;
    }
    terminal.line("");
    let mut table = Table::new(["TASK", "NODES", "IN", "OUT", "BUSY", "BACKPRESSURED", "IDLE", "WATERMARK"]);
    for task in &status.tasks {
        let pressed = if task.backpressured > 0.5 { Some(Colour::Yellow) } else { None };
        let backpressured = number(share(task.backpressured));
        table.row([
            text(format!("{}/{}", task.vertex, task.index)),
            text(task.nodes.join(" > ")),
            number(count(task.records_in)),
            number(count(task.records_out)),
            number(share(task.busy)),
            match pressed {
                Some(colour) => backpressured.colour(colour),
                None => backpressured,
            },
            number(share(task.idle)),
            text(event_time(task.watermark)),
        ]);
    }
    terminal.table(&table);
}

fn checkpoints(reports: &[CheckpointReport], terminal: &mut Terminal) {
    if reports.is_empty() {
        terminal.note("no checkpoint in this run yet");
        return;
    }
    let mut table =
        Table::new(["CHECKPOINT", "KIND", "STATUS", "TOOK", "SIZE", "IN FLIGHT", "TASKS", "ALIGNED", "SYNC", "ASYNC", "REASON"]);
    for report in reports {
        let (status, colour) = match report.status {
            CheckpointStatus::Pending => ("pending", Colour::Yellow),
            CheckpointStatus::Completed => ("completed", Colour::Green),
            CheckpointStatus::Aborted => ("aborted", Colour::Red),
        };
        table.row([
            number(report.checkpoint.to_string()),
            text(format!("{:?}", report.kind).to_lowercase()),
            text(status).colour(colour),
            number(duration(report.duration_ms)),
            number(bytes(report.bytes)),
            number(bytes(report.inflight_bytes)),
            number(format!("{}/{}", report.acknowledged, report.tasks)),
            number(micros(report.alignment_max_us)),
            number(micros(report.sync_max_us)),
            number(micros(report.async_max_us)),
            text(shortened(report.reason.as_deref().unwrap_or(""), 60)),
        ]);
    }
    terminal.table(&table);
}

fn dead_letters(page: &DeadLetterPage, terminal: &mut Terminal) {
    if page.dead_letters.is_empty() {
        terminal.note("no dead letters");
    } else {
        let mut table = Table::new(["TIME", "OPERATOR", "KIND", "RECORD", "REASON", "VALUE"]);
        for letter in &page.dead_letters {
            table.row([
                text(time(letter.processing_time_ms)),
                text(&letter.operator),
                text(&letter.kind),
                text(place(letter)),
                text(shortened(&letter.reason, 60)),
                text(shortened(&value(letter), 60)),
            ]);
        }
        terminal.table(&table);
    }
    if page.unreadable > 0 {
        terminal.note(format!("{} lines could not be read", page.unreadable));
    }
    if let Some(next) = &page.next {
        terminal.note(format!("older ones: --before {}", terminal::printable(next)));
    }
}

/// `flights.csv#17`
fn place(letter: &DeadLetter) -> String {
    match (&letter.split, letter.record) {
        (Some(split), Some(record)) => format!("{split}#{record}"),
        (Some(split), None) => split.clone(),
        _ => "-".into(),
    }
}

fn value(letter: &DeadLetter) -> String {
    let field = |name: &str| letter.row.get(name).and_then(|value| value.as_str());
    field("value")
        .map(str::to_owned)
        .or_else(|| field("value_base64").map(|v| format!("base64:{v}")))
        .unwrap_or_else(|| "-".into())
}
