//! `tidegate module ...`

use super::client::{Client, segment};
use super::error::CliError;
use super::job_file::read_module;
use super::terminal::{Table, Terminal, bytes, number, short, text, time};
use crate::api::{ModuleList, ModuleView};
use clap::Subcommand;
use std::io::{self, Read};
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Debug, Subcommand)]
pub enum ModuleCommand {
    /// Upload a component under a name and a version that will never change.
    Push {
        #[arg(value_name = "NAME@VERSION")]
        module: Reference,
        /// The component: a .wasm file.
        file: PathBuf,
    },
    /// What is stored.
    List,
    /// What a component needs, declares and emits.
    Inspect {
        #[arg(value_name = "NAME@VERSION")]
        module: Reference,
    },
    /// Remove a version that no job uses.
    Delete {
        #[arg(value_name = "NAME@VERSION")]
        module: Reference,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    name: String,
    version: String,
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('@') {
            Some((name, version)) if !name.is_empty() && !version.is_empty() => {
                Ok(Self { name: name.into(), version: version.into() })
            }
            _ => Err("a module is written NAME@VERSION, as in delays@1.2.0".into()),
        }
    }
}

impl Reference {
    fn path(&self) -> String {
        module_path(&self.name, &self.version)
    }
}

pub fn module_path(name: &str, version: &str) -> String {
    format!("/v1/modules/{}/{}", segment(name), segment(version))
}

pub fn execute(command: ModuleCommand, client: &Client, terminal: &mut Terminal) -> Result<(), CliError> {
    match command {
        ModuleCommand::Push { module, file } => {
            let component = read_module(&file)?;
            let len = component.len() as u64;
            let (view, created): (ModuleView, bool) = {
                let bar = terminal.bytes_bar(len, "uploading");
                let reader = Upload { bytes: io::Cursor::new(component), bar: &bar.0 };
                client.put_bytes(&module.path(), len, reader)?
            };
            if terminal.as_json(&view) {
                return Ok(());
            }
            let done = if created { "pushed" } else { "unchanged" };
            terminal.line(format!(
                "{done} {} ({}, compiled in {} ms)",
                view.reference(),
                bytes(len),
                view.description.compile_ms
            ));
            terminal.line(format!("  digest   {}", view.digest));
            terminal.line(format!("  world    {}", view.description.world));
        }
        ModuleCommand::List => {
            let list: ModuleList = client.get("/v1/modules")?;
            if terminal.as_json(&list) {
                return Ok(());
            }
            if list.modules.is_empty() {
                terminal.note("no modules yet: tidegate module push NAME@VERSION FILE");
                return Ok(());
            }
            let mut table = Table::new(["MODULE", "DIGEST", "SIZE", "WORLD", "STATES", "PUSHED"]);
            for module in &list.modules {
                table.row([
                    text(module.reference()),
                    text(short(&module.digest)),
                    number(bytes(module.size_bytes)),
                    text(&module.description.world),
                    number(module.description.states.len().to_string()),
                    text(time(module.created_ms)),
                ]);
            }
            terminal.table(&table);
        }
        ModuleCommand::Inspect { module } => {
            let view: ModuleView = client.get(&module.path())?;
            if !terminal.as_json(&view) {
                inspect(&view, terminal);
            }
        }
        ModuleCommand::Delete { module } => {
            client.delete(&module.path())?;
            terminal.note(format!("deleted {}@{}", module.name, module.version));
        }
    }
    Ok(())
}

fn inspect(view: &ModuleView, terminal: &mut Terminal) {
    let description = &view.description;
    let mut table = Table::new(["MODULE", ""]);
    table.row([text("reference"), text(view.reference())]);
    table.row([text("digest"), text(&view.digest)]);
    table.row([text("size"), text(bytes(view.size_bytes))]);
    table.row([text("pushed"), text(time(view.created_ms))]);
    table.row([text("compiled in"), text(format!("{} ms", description.compile_ms))]);
    table.row([text("world"), text(&description.world)]);
    table.row([text("operator"), text(format!("{} {}", description.operator.name, description.operator.version))]);
    table.row([text("inputs"), text(description.operator.inputs.to_string())]);
    table.row([text("keyed"), text(if description.operator.keyed { "yes" } else { "no" })]);
    table.row([text("outputs"), text(description.operator.outputs.join(", "))]);
    table.row([text("imports"), text(description.imports.join(", "))]);
    terminal.table(&table);
    if !description.states.is_empty() {
        terminal.line("");
        let mut table = Table::new(["STATE", "KIND", "TYPE", "VERSION", "TIME TO LIVE"]);
        for state in &description.states {
            // As in JSON: the kinds have parameters.
            let kind =
                serde_json::to_value(state.kind).map(|kind| kind.to_string().replace(['"', '{', '}'], "")).unwrap_or_default();
            let value = match &state.map_key_type {
                Some(key) => format!("{key} -> {}", state.value_type),
                None => state.value_type.clone(),
            };
            let ttl = state.ttl.map_or_else(|| "for ever".to_owned(), |ttl| super::terminal::duration(ttl.ms));
            table.row([text(&state.name), text(kind), text(value), number(state.schema_version.to_string()), text(ttl)]);
        }
        terminal.table(&table);
    }
}

/// Moves the bar, and says what goes on when all bytes are sent.
struct Upload<'a> {
    bytes: io::Cursor<Vec<u8>>,
    bar: &'a indicatif::ProgressBar,
}

impl Read for Upload<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.bytes.read(buffer)?;
        self.bar.inc(n as u64);
        if self.bytes.position() == self.bytes.get_ref().len() as u64 {
            self.bar.set_message("checking and compiling");
        }
        Ok(n)
    }
}
