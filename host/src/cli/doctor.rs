//! `tidegate doctor`: each thing that was looked at on a line of its own, with what to do where it is not well.

use super::client::Client;
use super::error::CliError;
use super::serve::threads;
use super::terminal::{Colour, Table, Terminal, printable, text};
use crate::api::VersionView;
use crate::config::LISTEN_DEFAULT;
use crate::doctor::{self, Finding, Health};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// The host's data folder. Nothing in it is changed.
    #[arg(long, env = "TIDEGATE_DATA", default_value = "tidegate-data", value_name = "DIR")]
    data: PathBuf,
    /// Where a host would listen.
    #[arg(long, env = "TIDEGATE_LISTEN", default_value = LISTEN_DEFAULT, value_name = "ADDRESS")]
    listen: SocketAddr,
}

/// `--output json`
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    findings: Vec<Finding>,
}

pub fn doctor(args: &DoctorArgs, server: Option<&Client>, terminal: &mut Terminal) -> Result<u8, CliError> {
    let mut findings = doctor::machine();
    findings.push(match server {
        Some(server) => reachable(server),
        None => doctor::port(args.listen),
    });
    findings.extend(threads()?.block_on(doctor::data_folder(&args.data)));
    let report = Report { ok: findings.iter().all(|finding| finding.health != Health::Fail), findings };
    if !terminal.as_json(&report) {
        print(&report.findings, terminal);
    }
    Ok(u8::from(!report.ok))
}

fn reachable(server: &Client) -> Finding {
    let (health, found, remedy) = match server.get::<VersionView>("/v1/version") {
        Ok(it) if it.version == env!("CARGO_PKG_VERSION") => {
            (Health::Ok, format!("{} answers, version {}", server.server(), it.version), None)
        }
        Ok(it) => {
            let found = format!("{} has version {}, this is {}", server.server(), it.version, env!("CARGO_PKG_VERSION"));
            (Health::Warn, found, Some("use the command line of the server's version".to_owned()))
        }
        Err(error) => (Health::Fail, error.what, error.remedy),
    };
    Finding { subject: "server".into(), health, found, remedy }
}

fn print(findings: &[Finding], terminal: &mut Terminal) {
    let mut table = Table::new(["", "WHAT", "FOUND"]);
    for finding in findings {
        let (word, colour) = match finding.health {
            Health::Ok => ("ok", Colour::Green),
            Health::Warn => ("warn", Colour::Yellow),
            Health::Fail => ("fail", Colour::Red),
        };
        let remedy = finding.remedy.as_ref().map(|remedy| format!(" -> {remedy}")).unwrap_or_default();
        table.row([text(word).colour(colour), text(&finding.subject), text(printable(&format!("{}{remedy}", finding.found)))]);
    }
    terminal.table(&table);
}
