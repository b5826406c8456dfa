//! Cold start: from the start of the process to the first committed output, with a module that was compiled before.
//!
//! ```text
//!   once   serve, put the module (compiles it), kill
//!   run    serve ──ready──▶ put the job ──▶ first file in the sink's folder
//!          ├──────────────── cold_ms ────────────────────────┤
//! ```
//!
//! The job is bounded and small, so that its first commit is that of its end and waits for no checkpoint interval.

use crate::engine::{Cold, Engine, EngineError, Measured};
use crate::job::{self, Sink};
use crate::measure::Progress;
use crate::plan::RunPlan;
use crate::server::{Server, wait_until};
use std::path::{Path, PathBuf};
use std::time::Instant;

const MODULE_VERSION: &str = "0.1.0";

pub struct ColdStart {
    binary: PathBuf,
}

impl ColdStart {
    /// The binary that was built beside this one, or `TIDEGATE_BIN`.
    pub fn of_this_build() -> Result<Self, EngineError> {
        if let Some(binary) = std::env::var_os("TIDEGATE_BIN") {
            return Ok(Self { binary: binary.into() });
        }
        let here = std::env::current_exe().map_err(|error| EngineError::new("looking for the tidegate binary", error))?;
        let binary = here.with_file_name("tidegate");
        if !binary.is_file() {
            let remedy = "not there: build it (cargo build --release -p tidegate) or set TIDEGATE_BIN";
            return Err(EngineError::new(format!("looking for {}", binary.display()), remedy));
        }
        Ok(Self { binary })
    }
}

impl Engine for ColdStart {
    fn run(&self, plan: &RunPlan, progress: &mut Progress) -> Result<Measured, EngineError> {
        let package = job::package(plan.workload).expect("BUG: cold has an operator");
        progress.phase("building the operator");
        let component = guest_build::try_component(package).map_err(|error| EngineError::new("building the operator", error))?;
        let component =
            std::fs::read(&component).map_err(|error| EngineError::new(format!("reading {}", component.display()), error))?;
        let cold = self.start_cold(plan, package, &component, progress)?;
        Ok(Measured { cold: Some(cold), ..Measured::default() })
    }
}

impl ColdStart {
    fn start_cold(&self, plan: &RunPlan, package: &str, component: &[u8], progress: &mut Progress) -> Result<Cold, EngineError> {
        let folder = tempfile::tempdir().map_err(|error| EngineError::new("making a folder", error))?;
        let (data, out) = (folder.path().join("data"), folder.path().join("out"));

        progress.phase("compiling the module");
        let mut first = Server::start(&self.binary, &data)?;
        first.wait_until_ready()?;
        first.client().put_module(package, MODULE_VERSION, component)?;
        drop(first);

        progress.phase("starting cold");
        let module = format!("{package}@{MODULE_VERSION}");
        let job = job::spec(plan, &module, Sink::File(&out.to_string_lossy()));
        let start = Instant::now();
        let mut server = Server::start(&self.binary, &data)?;
        server.wait_until_ready()?;
        // Reading a file of the kernel's takes microseconds of the milliseconds that are measured.
        let idle_bytes = server.usage()?.rss_bytes;
        server.client().put_job(&job)?;
        wait_until("waiting for the first committed output", || has_output(&out))?;
        let cold_ms = start.elapsed().as_secs_f64() * 1000.0;

        let binary_bytes = std::fs::metadata(&self.binary)
            .map_err(|error| EngineError::new(format!("looking at {}", self.binary.display()), error))?
            .len();
        Ok(Cold { cold_ms, idle_bytes, binary_bytes })
    }
}

/// Whether a sink's folder holds a committed file with something in it. What is staged has a name that starts with a dot, or lies
/// in such a folder.
fn has_output(folder: &Path) -> Result<bool, EngineError> {
    let looking = |error: std::io::Error| EngineError::new(format!("looking into {}", folder.display()), error);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(looking(error)),
    };
    for entry in entries {
        let entry = entry.map_err(looking)?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        // A file that was renamed away between the two looks is none.
        if entry.metadata().is_ok_and(|data| data.is_file() && data.len() > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_committed_file_with_content_is_output() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("out");
        assert!(!has_output(&out).expect("no folder yet"));
        std::fs::create_dir_all(out.join(".staging")).expect("a folder");
        std::fs::write(out.join(".part"), "x").expect("a file");
        std::fs::write(out.join(".staging/part"), "x").expect("a file");
        std::fs::write(out.join("empty"), "").expect("a file");
        assert!(!has_output(&out).expect("nothing committed"));
        std::fs::write(out.join("part-0"), "x").expect("a file");
        assert!(has_output(&out).expect("committed"));
    }
}
