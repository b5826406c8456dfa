//! `tidegate job ...`

use super::client::{Client, segment};
use super::error::CliError;
use super::job_file::JobFile;
use super::logs;
use super::module::module_path;
use super::terminal::{
    self, Cell, Colour, Table, Terminal, bytes, count, duration, event_time, micros, number, share, short, text, time,
};
use crate::api::{
    CheckpointList, CheckpointReport, DeadLetter, DeadLetterPage, DesiredState, JobList, JobState, JobView, JobWhy,
    OperationView, RestoreReport, SavepointName, StartFrom, StartRequest, StopRequest, TaskStatus,
};
use crate::durable_file::unique_id;
use clap::Subcommand;
use std::path::PathBuf;
use tidegate_core::checkpoint::CheckpointStatus;
use tidegate_core::diagnosis::{self, CheckpointPhase};

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
    /// What a job waits for, and since when: one sentence, then task by task.
    Why { job: String },
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
        /// Where to begin: `latest` (the last checkpoint), `fresh` (from nothing), a savepoint's id, or JOB/ID for a savepoint of
        /// another job.
        #[arg(long, default_value = "latest", value_name = "latest|fresh|[JOB/]SAVEPOINT")]
        from: String,
        /// The same as `--from` with a savepoint.
        #[arg(long, value_name = "[JOB/]SAVEPOINT", conflicts_with = "from")]
        from_savepoint: Option<String>,
        /// Where the newest checkpoint can't be read, go back to an older one, even if rows that were taken away are written again.
        #[arg(long, conflicts_with = "from_savepoint")]
        allow_step_back: bool,
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
    /// What the job's operators said, oldest first.
    Logs {
        job: String,
        /// Go on with what they say, until the job ends.
        #[arg(long, short)]
        follow: bool,
        /// This level and those above it.
        #[arg(long, value_parser = ["trace", "debug", "info", "warn", "error"])]
        level: Option<String>,
        /// Only of this operator.
        #[arg(long)]
        operator: Option<String>,
        /// The last so many lines.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
    },
    /// The same as `dead-letter list`.
    DeadLetters(super::dead_letter::ListArgs),
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
        JobCommand::Why { job } => {
            let answer: JobWhy = client.get(&format!("{}/why", job_path(&job)))?;
            if !terminal.as_json(&answer) {
                why(&answer, terminal);
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
        JobCommand::Start { job, from, from_savepoint, allow_step_back } => {
            let from = match (from_savepoint, from.as_str()) {
                (Some(savepoint), _) => StartFrom::Savepoint(savepoint_name(&savepoint)),
                (None, "latest") => StartFrom::Latest,
                (None, "fresh") => StartFrom::Fresh,
                (None, savepoint) => StartFrom::Savepoint(savepoint_name(savepoint)),
            };
            start(&job, &StartRequest { from, allow_step_back }, client, terminal)
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
        JobCommand::DeadLetters(args) => super::dead_letter::list(&args, client, terminal),
        JobCommand::Logs { job, follow, level, operator, limit } => {
            logs::logs(&job, follow, level.as_deref(), operator.as_deref(), limit, client, terminal)
        }
    }
}

/// `ID`, or `JOB/ID`.
pub fn savepoint_name(text: &str) -> SavepointName {
    match text.split_once('/') {
        Some((job, savepoint)) => SavepointName { savepoint: savepoint.to_owned(), job: Some(job.to_owned()) },
        None => SavepointName { savepoint: text.to_owned(), job: None },
    }
}

pub fn start(job: &str, request: &StartRequest, client: &Client, terminal: &mut Terminal) -> Result<(), CliError> {
    let view: JobView = client.post(&format!("{}/start", job_path(job)), request)?;
    if !terminal.as_json(&view) {
        terminal.line(format!("{job} is {}", state_now(&view)));
    }
    Ok(())
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
    if let Some(restored) = status.restored.as_ref().filter(|restored| restored.is_step_back()) {
        step_back(restored, terminal);
    }
    for (source, records) in status.restored.iter().flat_map(|restored| &restored.given_up) {
        terminal.line(format!("  given up   {} of {source}, which may have been handed out", count(*records)));
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
    guests(&status.tasks, terminal);
}

/// What the guests have used.
fn guests(tasks: &[TaskStatus], terminal: &mut Terminal) {
    let mut table = Table::new(["GUEST", "TASK", "CALLS", "CPU", "MEMORY", "PEAK"]);
    let mut any = false;
    for task in tasks {
        for guest in &task.guests {
            any = true;
            table.row([
                text(&guest.operator),
                text(format!("{}/{}", task.vertex, task.index)),
                number(count(guest.calls)),
                number(duration(guest.cpu_ms)),
                number(bytes(guest.memory_bytes)),
                number(bytes(guest.memory_peak_bytes)),
            ]);
        }
    }
    if any {
        terminal.line("");
        terminal.table(&table);
    }
}

fn why(answer: &JobWhy, terminal: &mut Terminal) {
    let facts = &answer.facts;
    let since = |since_ms: u64| duration(facts.at_ms.saturating_sub(since_ms));
    terminal.line(terminal::printable(&answer.diagnosis));
    if !facts.tasks.is_empty() {
        terminal.line("");
        let mut table = Table::new(["TASK", "NODES", "DOES", "SINCE", "BUSY", "IN GUEST"]);
        for task in &facts.tasks {
            table.row([
                text(&task.name),
                text(task.nodes.join(" > ")),
                text(diagnosis::does(task)),
                number(since(task.since_ms)),
                number(share(task.shares.busy)),
                number(share(task.shares.guest)),
            ]);
        }
        terminal.table(&table);
    }
    if !facts.checkpoints.is_empty() {
        terminal.line("");
        let mut table = Table::new(["CHECKPOINT", "PENDING", "STEP", "SINCE", "NOT ACKNOWLEDGED BY"]);
        for checkpoint in &facts.checkpoints {
            let step = match checkpoint.phase {
                CheckpointPhase::Tasks => "waits for tasks",
                CheckpointPhase::Manifest => "manifest is written",
                CheckpointPhase::Decision => "decision is written",
                CheckpointPhase::SinkCommit => "sinks commit",
            };
            table.row([
                number(checkpoint.checkpoint.to_string()),
                number(since(checkpoint.triggered_ms)),
                text(step),
                number(since(checkpoint.phase_since_ms)),
                text(shortened(&checkpoint.missing.join(", "), 60)),
            ]);
        }
        terminal.table(&table);
    }
}

fn step_back(restored: &RestoreReport, terminal: &mut Terminal) {
    let from = restored.checkpoint.map_or_else(|| "nothing".to_owned(), |checkpoint| format!("checkpoint {checkpoint}"));
    terminal.line(format!("  restored   {}", terminal.paint(&format!("from {from}, not from the newest"), Colour::Yellow)));
    for damaged in &restored.damaged {
        let what = damaged.checkpoint.map_or_else(|| "decision log".to_owned(), |checkpoint| format!("checkpoint {checkpoint}"));
        terminal.line(format!("    damaged  {what}: {}", terminal::printable(&damaged.why)));
    }
    for (done, by_sink) in [("retracted", &restored.retracted), ("repeated", &restored.repeated)] {
        for (sink, names) in by_sink {
            terminal.line(format!("    {done:<9}  {} of {sink}", terminal::printable(&names.join(", "))));
        }
    }
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

pub fn dead_letters(page: &DeadLetterPage, terminal: &mut Terminal) {
    if page.dead_letters.is_empty() {
        terminal.note("no dead letters");
    } else {
        let mut table = Table::new(["ID", "TIME", "OPERATOR", "KIND", "STATE", "RECORD", "REASON", "VALUE"]);
        for letter in &page.dead_letters {
            table.row([
                text(&letter.id),
                text(time(letter.processing_time_ms)),
                text(&letter.operator),
                text(&letter.kind),
                text(letter.state.as_ref().map_or("-", |state| state.state.name())),
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
pub fn place(letter: &DeadLetter) -> String {
    match (&letter.split, letter.record) {
        (Some(split), Some(record)) => format!("{split}#{record}"),
        (Some(split), None) => split.clone(),
        _ => "-".into(),
    }
}

pub fn value(letter: &DeadLetter) -> String {
    let field = |name: &str| letter.row.get(name).and_then(|value| value.as_str());
    field("value")
        .map(str::to_owned)
        .or_else(|| field("value_base64").map(|v| format!("base64:{v}")))
        .unwrap_or_else(|| "-".into())
}
