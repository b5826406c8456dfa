//! `tidegate savepoint ...`

use super::client::{Client, segment};
use super::error::CliError;
use super::job::{job_path, savepoint_name, start};
use super::terminal::{Table, Terminal, bytes, number, text, time};
use crate::api::{OperationView, SavepointList, SavepointRequest, StartFrom, StartRequest};
use crate::durable_file::unique_id;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum SavepointCommand {
    /// Take one; the job goes on.
    Create {
        job: String,
        /// Do not wait until it is stored.
        #[arg(long)]
        no_wait: bool,
    },
    /// The savepoints of a job.
    List { job: String },
    /// Start a job that is stopped from a savepoint: its own, or a copy of another job's.
    Restore {
        job: String,
        #[arg(value_name = "[JOB/]SAVEPOINT")]
        savepoint: String,
    },
    /// Remove one for good.
    Delete { job: String, savepoint: String },
}

pub fn execute(command: SavepointCommand, client: &Client, terminal: &mut Terminal) -> Result<(), CliError> {
    match command {
        SavepointCommand::Create { job, no_wait } => {
            let request = SavepointRequest { operation: Some(unique_id()) };
            let mut operation: OperationView = client.post(&format!("{}/savepoints", job_path(&job)), &request)?;
            if !no_wait {
                operation = client.finish(operation, terminal, &format!("taking a savepoint of {job}"))?;
            }
            if terminal.as_json(&operation) {
                return Ok(());
            }
            match &operation.savepoint {
                Some(savepoint) => {
                    terminal.line(format!("savepoint {} of {job} ({})", savepoint.id, bytes(savepoint.bytes)));
                    terminal.line(format!("  {}", savepoint.path));
                }
                None => terminal.line(format!("taking a savepoint of {job}: {}{}", client.server(), operation.path())),
            }
        }
        SavepointCommand::List { job } => {
            let list: SavepointList = client.get(&format!("{}/savepoints", job_path(&job)))?;
            if terminal.as_json(&list) {
                return Ok(());
            }
            if list.savepoints.is_empty() {
                terminal.note(format!("no savepoints yet: tidegate savepoint create {job}"));
                return Ok(());
            }
            let mut table = Table::new(["SAVEPOINT", "CHECKPOINT", "SIZE", "TAKEN", "PATH"]);
            for savepoint in &list.savepoints {
                table.row([
                    text(&savepoint.id),
                    number(savepoint.checkpoint.to_string()),
                    number(bytes(savepoint.bytes)),
                    text(time(savepoint.created_ms)),
                    text(&savepoint.path),
                ]);
            }
            terminal.table(&table);
        }
        SavepointCommand::Restore { job, savepoint } => {
            let from = StartFrom::Savepoint(savepoint_name(&savepoint));
            start(&job, &StartRequest { from, allow_step_back: false }, client, terminal)?;
        }
        SavepointCommand::Delete { job, savepoint } => {
            client.delete(&format!("{}/savepoints/{}", job_path(&job), segment(&savepoint)))?;
            terminal.note(format!("deleted savepoint {savepoint} of {job}"));
        }
    }
    Ok(())
}
