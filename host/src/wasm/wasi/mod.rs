//! WASI preview 2 without any power behind it.
//!
//! Language runtimes import `wasi:io`, `cli`, `clocks`, `random`, `filesystem` and `sockets` whether the operator needs them or
//! not, each runtime in a version of its own. So nothing is linked from a list: [`link`] looks at what a component imports and
//! defines exactly that, under exactly that name.
//!
//! Invariants:
//! * nothing a guest does here reaches the machine: no file, socket, environment, clock or entropy of the host;
//! * what a guest sees of time and randomness depends on its call alone ([`WasiState::begin_call`]), so a replay sees it again;
//! * no function blocks: epochs don't reach a guest that waits inside the host, so a sleep moves the guest's clock instead;
//! * what isn't in the packages above is refused by name, everything at once, before a component is instantiated.
//!
//! ```text
//!   imports of the component
//!     tidegate:streaming/*                      the contract, linked elsewhere
//!     wasi:{io,cli,clocks,...}/* at 0.2.n       `provide`: streams to the log, the call's clock, seeded randomness
//!                                               `denial`: every other function answers as its type allows (err, none, empty)
//!     anything else                             ForbiddenImports
//! ```

mod denial;
mod output;
mod provide;
mod state;
#[cfg(test)]
mod tests;

pub use output::{Stream, finish_call};
pub use state::{WASI_OUTPUT_BYTES_PER_CALL_MAX, WASI_RANDOM_BYTES_MAX, WasiLimits, WasiState, seed};

use tidegate_core::limits::FORBIDDEN_IMPORTS_SHOWN_MAX;
use wasmtime::Engine;
use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{Component, Linker};

/// The data of a store that hosts a guest.
pub trait WasiView {
    fn wasi(&mut self) -> &mut WasiState;

    /// One line that the guest wrote to stdout or stderr, without its end. It is cut already; how many lines a second reach the
    /// operator's log is for the view to limit.
    fn log_line(&mut self, stream: Stream, line: &str);
}

/// Imports that no operator gets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error(
    "the component imports what operators can't have: {}; allowed are tidegate:streaming and, answered without any power, \
     wasi:io, wasi:cli, wasi:clocks, wasi:random, wasi:filesystem and wasi:sockets at versions 0.2.x",
    shown(.names)
)]
pub struct ForbiddenImports {
    /// As the component imports them; `interface#item` where only one item of an interface is in the way.
    pub names: Vec<String>,
}

/// As many as somebody reads: a component may have a million imports with long names.
fn shown(names: &[String]) -> String {
    let cut = |name: &String| name.chars().take(200).collect::<String>();
    let mut shown: Vec<String> = names.iter().take(FORBIDDEN_IMPORTS_SHOWN_MAX).map(cut).collect();
    if names.len() > shown.len() {
        shown.push(format!("and {} more", names.len() - shown.len()));
    }
    shown.join(", ")
}

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Forbidden(#[from] ForbiddenImports),
    /// The linker has an import of this name already, or memory ran out.
    #[error("cannot define the import {name}: {cause:#}")]
    Define { name: String, cause: wasmtime::Error },
}

/// Why a call into WASI ended the guest. The root cause of the error of the guest's call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WasiTrap {
    #[error("{function} is not available to operators")]
    NotAvailable { function: String },
    #[error("the operator ended itself with {status} ({function}); an operator returns a failure instead")]
    Exit { function: String, status: String },
    #[error("{function}: {attempted} exceeds the limit of {max} ({limit})")]
    Limit { function: String, attempted: String, max: u64, limit: &'static str },
    #[error("{function}: {reason}")]
    Misuse { function: String, reason: &'static str },
}

/// What an import is to us.
enum Import<'a> {
    /// The contract.
    Ours,
    /// `io/poll`: package and interface without version.
    Wasi(&'a str),
    Forbidden,
}

const PACKAGES: [&str; 6] = ["io", "cli", "clocks", "random", "filesystem", "sockets"];

fn classify(name: &str) -> Import<'_> {
    if name.starts_with("tidegate:streaming/") {
        return Import::Ours;
    }
    let Some((interface, version)) = name.strip_prefix("wasi:").and_then(|rest| rest.split_once('@')) else {
        return Import::Forbidden;
    };
    let package = interface.split_once('/').map(|(package, _)| package);
    // 0.2 alone: prereleases have other types, and 0.3 is asynchronous.
    let patch = version.strip_prefix("0.2.").is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit()));
    match package {
        Some(package) if patch && PACKAGES.contains(&package) => Import::Wasi(interface),
        _ => Import::Forbidden,
    }
}

/// Names everything that `component` imports and no operator gets. Empty: [`link`] will not refuse it.
pub fn forbidden_imports(component: &Component, engine: &Engine) -> Vec<String> {
    let mut names = Vec::new();
    for (name, import) in component.component_type().imports(engine) {
        match (&import.ty, classify(name)) {
            // A type has no power.
            (ComponentItem::Type(_), _) | (ComponentItem::ComponentInstance(_), Import::Ours) => {}
            (ComponentItem::ComponentInstance(instance), Import::Wasi(_)) => forbidden_items(name, instance, engine, &mut names),
            _ => names.push(name.to_string()),
        }
    }
    names
}

fn forbidden_items(name: &str, instance: &ComponentInstance, engine: &Engine, names: &mut Vec<String>) {
    for (item, export) in instance.exports(engine) {
        let known = match &export.ty {
            ComponentItem::ComponentFunc(function) => !function.async_(),
            ComponentItem::Type(_) | ComponentItem::Resource(_) => true,
            ComponentItem::ComponentInstance(_)
            | ComponentItem::Component(_)
            | ComponentItem::Module(_)
            | ComponentItem::CoreFunc(_) => false,
        };
        if !known {
            names.push(format!("{name}#{item}"));
        }
    }
}

/// Defines everything that `component` imports from WASI, and refuses it if it imports anything else but the contract.
///
/// `linker` must not have these names already: a linker belongs to one component.
pub fn link<T: WasiView + 'static>(linker: &mut Linker<T>, component: &Component, engine: &Engine) -> Result<(), LinkError> {
    let names = forbidden_imports(component, engine);
    if !names.is_empty() {
        return Err(ForbiddenImports { names }.into());
    }
    for (name, import) in component.component_type().imports(engine) {
        if let (ComponentItem::ComponentInstance(instance), Import::Wasi(interface)) = (&import.ty, classify(name)) {
            link_interface(linker, name, interface, instance, engine)
                .map_err(|cause| LinkError::Define { name: name.to_string(), cause })?;
        }
    }
    Ok(())
}

fn link_interface<T: WasiView + 'static>(
    linker: &mut Linker<T>,
    name: &str,
    interface: &str,
    instance: &ComponentInstance,
    engine: &Engine,
) -> wasmtime::Result<()> {
    let mut at = linker.instance(name)?;
    for (item, export) in instance.exports(engine) {
        match &export.ty {
            ComponentItem::Resource(_) => provide::resource(&mut at, item)?,
            ComponentItem::ComponentFunc(function) => {
                let full = format!("{name}#{item}");
                if !provide::function(&mut at, interface, item, &full)? {
                    denial::function(&mut at, item, &full, function)?;
                }
            }
            // Types need no definition, and the rest was refused.
            _ => {}
        }
    }
    Ok(())
}
