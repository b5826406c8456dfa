//! `tidegate run JOB.toml`: one job in the foreground, with no server and no set-up.
//!
//! It is the same host with the same guarantees, only that it starts this one job and ends with it. Ctrl-C stops the job with a
//! savepoint; the same command goes on from there. A second Ctrl-C does not wait, and loses nothing that was committed.

use super::error::CliError;
use super::guests::GuestArgs;
use super::job_file::JobFile;
use super::serve::{LogFormat, start_log, threads};
use super::terminal::{Colour, Terminal, bytes, count, duration, event_time, state_colour, time};
use crate::api::{JobStatus, OperationState, OperationView, StartFrom, StopRequest, TaskStatus};
use crate::config::HostConfig;
use crate::job_manager::{JobManager, JobState, ManagerError, Resume};
use crate::server::{self, END_OF_JOBS, HostError, Wiring};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tidegate_core::checkpoint::CheckpointStatus;
use tokio::sync::{mpsc, watch};

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The job, as TOML or JSON. Paths in it are relative to its folder; modules may be named by the paths of their components.
    job: PathBuf,
    /// Where the job's checkpoints are kept. By default `.tidegate` next to the job file.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Begin from nothing, whatever earlier runs left behind.
    #[arg(long)]
    fresh: bool,
    /// What is logged, as in `info` or `warn,tidegate=debug`.
    #[arg(long, env = "TIDEGATE_LOG", default_value = "warn", value_name = "FILTER")]
    log: String,
    #[command(flatten)]
    guests: GuestArgs,
}

const INTERRUPTED: u8 = 130;
/// Between two looks at the job.
const LOOK: Duration = Duration::from_millis(250);
/// Between two lines where no progress can be drawn.
const LINE: Duration = Duration::from_secs(10);
/// Ctrl-C: for the savepoint. Whoever does not want to wait presses it again.
const LAST_SAVEPOINT: Duration = Duration::from_secs(3600);

/// What `--output json` says at the end.
#[derive(Debug, Serialize)]
struct Summary {
    job: String,
    state: JobState,
    records_in: u64,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    savepoint: Option<String>,
}

pub fn run(args: RunArgs, wiring: &dyn Wiring, terminal: &mut Terminal) -> Result<u8, CliError> {
    start_log(&args.log, LogFormat::Text)?;
    let mut file = JobFile::read(&args.job)?;
    let data = args.data.unwrap_or_else(|| file.base.join(".tidegate"));
    let mut config = HostConfig::resolve(&data, &file.base).map_err(HostError::from)?;
    args.guests.apply(&mut config);
    let runtime = threads()?;
    let code = runtime.block_on(async {
        let manager = server::open(&config, wiring, Resume::None).await?;
        let (interrupt, interrupts) = mpsc::channel(4);
        tokio::spawn(async move {
            loop {
                server::end_asked().await;
                // Full: it was heard often enough.
                let _ = interrupt.try_send(());
            }
        });
        push_modules(&mut file, &manager, terminal).await?;
        let code = foreground(&manager, &file, args.fresh, interrupts, terminal).await;
        manager.shutdown(Duration::ZERO, END_OF_JOBS).await;
        code
    });
    runtime.shutdown_background();
    code
}

async fn push_modules(file: &mut JobFile, manager: &JobManager, terminal: &mut Terminal) -> Result<(), CliError> {
    tokio::task::block_in_place(|| {
        file.push_modules(terminal, |name, version, bytes| {
            Ok(tokio::runtime::Handle::current().block_on(manager.push_module(name, version, bytes))?)
        })
    })
}

/// Starts the job and stays with it until it ends, or until the user wants it to.
async fn foreground(
    manager: &JobManager,
    file: &JobFile,
    fresh: bool,
    mut interrupts: mpsc::Receiver<()>,
    terminal: &mut Terminal,
) -> Result<u8, CliError> {
    let name = &file.name;
    match manager.show(name) {
        Ok(view) => {
            if let Some(ended) = view.ended.filter(|ended| ended.state == JobState::Finished && !fresh) {
                terminal.note(format!("{name} finished at {}; --fresh runs it again from the beginning", time(ended.at_ms)));
                terminal.as_json(&Summary::new(file, &view.status, Duration::ZERO, None));
                return Ok(0);
            }
        }
        Err(ManagerError::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    manager.put_job(name, file.source.clone(), Some(false)).await?;
    manager.start(name, if fresh { StartFrom::Fresh } else { StartFrom::Latest }).await?;
    let mut watch = manager.watch(name)?.expect("BUG: a job that was started has a run");

    let begun = Instant::now();
    let savepoint = tokio::select! {
        () = follow(manager, file, &mut watch, terminal) => None,
        _ = interrupts.recv() => {
            terminal.note(format!("stopping {name} with a savepoint; press Ctrl-C again to stop at once"));
            stop(manager, name, &mut interrupts, terminal).await?
        }
    };
    let status = manager.show(name)?.status;
    let summary = Summary::new(file, &status, begun.elapsed(), savepoint);
    if !terminal.as_json(&summary) {
        summary.print(terminal);
    }
    match summary.state {
        JobState::Finished => Ok(0),
        JobState::Stopped | JobState::Cancelled => Ok(INTERRUPTED),
        state => {
            let why = summary.error.unwrap_or_else(|| format!("it is {state}"));
            Err(CliError::failed(format!("the job `{name}` failed: {why}")))
        }
    }
}

/// Shows how it goes until the run has ended.
async fn follow(manager: &JobManager, file: &JobFile, watch: &mut watch::Receiver<JobState>, terminal: &mut Terminal) {
    let spinner = terminal.spinner(format!("{} starts", file.name));
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut before, mut last_line) = ((Instant::now(), 0), Instant::now());
    let mut rate = 0.0;
    loop {
        tokio::select! {
            ended = watch.wait_for(|state| state.is_terminal()) => {
                // An error means that the run is gone, which is an end too.
                drop(ended);
                return;
            }
            _ = looks.tick() => {}
        }
        let Ok(view) = manager.show(&file.name) else { return };
        let records = records_in(&view.status, file);
        let took = before.0.elapsed().as_secs_f64();
        if took >= 0.1 {
            // Smoothed: a look can fall between two batches. A restart begins to count anew.
            let now = records.saturating_sub(before.1) as f64 / took;
            rate = if rate == 0.0 { now } else { 0.7 * rate + 0.3 * now };
            before = (Instant::now(), records);
        }
        let checkpoints = manager.checkpoints(&file.name).unwrap_or_default();
        let checkpoint = checkpoints.iter().rev().find(|report| report.status == CheckpointStatus::Completed);
        let checkpoint = checkpoint
            .map(|it| format!(", checkpoint {} ({}, {})", it.checkpoint, bytes(it.bytes), duration(it.duration_ms)))
            .unwrap_or_default();
        let error = match (&view.status.error, view.status.state) {
            (Some(error), JobState::Failing | JobState::Restarting) => format!(": {}", super::terminal::printable(error)),
            _ => String::new(),
        };
        let line = format!(
            "{} {}{error}, {} records, {}/s, watermark {}{checkpoint}",
            file.name,
            view.status.state,
            count(records),
            count(rate as u64),
            event_time(view.status.watermark),
        );
        if terminal.is_interactive() {
            spinner.0.set_message(line);
        } else if last_line.elapsed() >= LINE {
            last_line = Instant::now();
            terminal.note(line);
        }
    }
}

/// With a savepoint, or without where the user can't wait or there is none to be had.
async fn stop(
    manager: &JobManager,
    name: &str,
    interrupts: &mut mpsc::Receiver<()>,
    terminal: &mut Terminal,
) -> Result<Option<String>, CliError> {
    let spinner = terminal.spinner("taking the savepoint");
    let request = StopRequest { savepoint: true, ..Default::default() };
    let saving = manager.stop(name, request).await?;
    let operation: Option<OperationView> = tokio::select! {
        operation = saving.wait(LAST_SAVEPOINT) => Some(operation),
        _ = interrupts.recv() => None,
    };
    drop(spinner);
    match operation {
        Some(OperationView { state: OperationState::Completed, savepoint, .. }) => return Ok(savepoint.map(|it| it.id)),
        Some(OperationView { problem: Some(problem), .. }) => {
            terminal.note(format!("no savepoint: {}", super::terminal::printable(&problem.detail)));
        }
        _ => {}
    }
    let stopped = manager.stop(name, StopRequest::default()).await?.wait(END_OF_JOBS).await;
    match stopped.problem {
        Some(problem) => Err(problem.into()),
        None => Ok(None),
    }
}

/// What the sources have read.
fn records_in(status: &JobStatus, file: &JobFile) -> u64 {
    let sources: Vec<&str> =
        file.source["source"].as_array().into_iter().flatten().filter_map(|source| source["name"].as_str()).collect();
    let reads = |task: &&TaskStatus| task.nodes.first().is_some_and(|node| sources.contains(&node.as_str()));
    status.tasks.iter().filter(reads).map(|task| task.records_in).sum()
}

impl Summary {
    fn new(file: &JobFile, status: &JobStatus, took: Duration, savepoint: Option<String>) -> Self {
        Self {
            job: file.name.clone(),
            state: status.state,
            records_in: records_in(status, file),
            seconds: took.as_secs_f64(),
            error: status.error.clone(),
            savepoint,
        }
    }

    fn print(&self, terminal: &mut Terminal) {
        let state = terminal.paint(self.state.name(), state_colour(self.state));
        let rate = self.records_in as f64 / self.seconds.max(0.001);
        let took = duration((self.seconds * 1e3) as u64);
        terminal.line(format!("{} {state}: {} records in {took} ({}/s)", self.job, count(self.records_in), count(rate as u64)));
        if let Some(savepoint) = &self.savepoint {
            terminal.line(format!("  savepoint {}; the same command goes on from here", terminal.paint(savepoint, Colour::Bold)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::Captured;
    use crate::job_manager::fake;
    use serde_json::json;

    fn file(source: serde_json::Value) -> JobFile {
        JobFile { name: "a".into(), source, base: "/".into() }
    }

    fn terminal() -> (Terminal, Captured) {
        let shown = Captured::default();
        (Terminal::plain(shown.clone(), shown.clone()), shown)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_interrupt_stops_with_a_savepoint_and_the_same_command_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (manager, runtime) = fake::open(folder.path()).await;
        let file = file(json!({ "name": "a" }));
        let (interrupt, interrupts) = mpsc::channel(4);
        interrupt.send(()).await.unwrap();
        let (mut screen, shown) = terminal();
        let code = foreground(&manager, &file, false, interrupts, &mut screen).await.unwrap();
        assert_eq!(code, INTERRUPTED);
        assert!(shown.text().contains("savepoint sp-1"), "{}", shown.text());
        assert_eq!(manager.show("a").unwrap().status.state, JobState::Stopped);

        interrupt_again(&manager, &file).await;
        assert_eq!(runtime.starts_of("a"), [StartFrom::Latest, StartFrom::Latest]);
    }

    async fn interrupt_again(manager: &JobManager, file: &JobFile) {
        let (interrupt, interrupts) = mpsc::channel(4);
        interrupt.send(()).await.unwrap();
        foreground(manager, file, false, interrupts, &mut terminal().0).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_second_interrupt_does_not_wait_for_the_savepoint() {
        let folder = tempfile::tempdir().unwrap();
        let (manager, _runtime) = fake::open(folder.path()).await;
        let file = file(json!({ "name": "a", "savepoint": "hang" }));
        let (interrupt, interrupts) = mpsc::channel(4);
        interrupt.send(()).await.unwrap();
        interrupt.send(()).await.unwrap();
        let code = foreground(&manager, &file, false, interrupts, &mut terminal().0).await.unwrap();
        assert_eq!(code, INTERRUPTED);
        assert_eq!(manager.show("a").unwrap().status.state, JobState::Cancelled);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_run_that_was_killed_is_carried_on_as_it_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(json!({ "name": "a", "state": "starting" }));
        let (manager, runtime) = fake::open(folder.path()).await;
        manager.put_job("a", file.source.clone(), Some(false)).await.unwrap();
        manager.start("a", StartFrom::Fresh).await.unwrap();
        let id = runtime.starts.lock().unwrap()[0].1.clone();
        drop(manager);

        let (manager, runtime) = fake::open_foreground(folder.path()).await;
        assert!(runtime.starts.lock().unwrap().is_empty(), "nothing starts by itself");
        interrupt_again(&manager, &file).await;
        assert_eq!(runtime.starts.lock().unwrap().clone(), [("a".to_owned(), id, StartFrom::Fresh)]);
    }
}
