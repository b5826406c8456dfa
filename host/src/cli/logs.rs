//! `tidegate job logs`: the lines that are kept, and then those that come.

use super::client::{Client, segment};
use super::error::CliError;
use super::job::job_path;
use super::terminal::{Colour, Terminal, printable, time};
use crate::api::{EventBody, EventView, LogLevel, LogLine, LogPage};
use std::time::Duration;

/// After a stream broke off.
const RECONNECT: Duration = Duration::from_secs(1);

pub fn logs(
    job: &str,
    follow: bool,
    level: Option<&str>,
    operator: Option<&str>,
    limit: u16,
    client: &Client,
    terminal: &mut Terminal,
) -> Result<(), CliError> {
    let mut chosen = String::new();
    for (name, value) in [("level", level), ("operator", operator)] {
        if let Some(value) = value {
            chosen.push_str(&format!("&{name}={}", segment(value)));
        }
    }
    let page: LogPage = client.get(&format!("{}/logs?limit={limit}{chosen}", job_path(job)))?;
    if !follow {
        if !terminal.as_json(&page) {
            if page.lines.is_empty() {
                terminal.note("no log lines are kept");
            }
            page.lines.iter().for_each(|line| show(line, terminal));
        }
        return Ok(());
    }
    page.lines.iter().for_each(|line| show(line, terminal));
    let mut after = page.next;
    // The state first: a job that has ended already says nothing any more.
    let view: crate::api::JobView = client.get(&job_path(job))?;
    let mut ended = view.status.state.is_terminal().then_some(view.status.state);
    if ended.is_some() {
        // What it said after the page was read.
        let rest: LogPage = client.get(&format!("{}/logs?after={after}&limit=1000{chosen}", job_path(job)))?;
        rest.lines.iter().for_each(|line| show(line, terminal));
    }
    while ended.is_none() {
        let path = format!("{}/events?types=log,state,lagged&after={after}{chosen}", job_path(job));
        client.events(&path, |event: EventView| {
            after = event.id.clone();
            match event.event {
                EventBody::Log(record) => show(&LogLine { id: event.id, at_ms: event.at_ms, record }, terminal),
                EventBody::Lagged => terminal.note("some lines are lost: newer ones pushed them out"),
                EventBody::State { to, .. } if to.is_terminal() => ended = Some(to),
                _ => {}
            }
            ended.is_none()
        })?;
        if ended.is_none() {
            std::thread::sleep(RECONNECT);
        }
    }
    if let Some(state) = ended {
        terminal.note(format!("{job} is {state}"));
    }
    Ok(())
}

fn show(line: &LogLine, terminal: &mut Terminal) {
    if terminal.as_json_line(line) {
        return;
    }
    let record = &line.record;
    let level = format!("{:5}", record.level.name());
    let level = match record.level {
        LogLevel::Error => terminal.paint(&level, Colour::Red),
        LogLevel::Warn => terminal.paint(&level, Colour::Yellow),
        _ => level,
    };
    let (operator, message) = (printable(&record.operator), printable(&record.message));
    terminal.line(format!("{}  {level}  {operator}/{}  {message}", time(line.at_ms), record.task));
}
