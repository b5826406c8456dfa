//! A job file on disk, and the modules that it names by path.
//!
//! `module = "target/op.wasm"` instead of `name@version` is for trying things out: the component is pushed as
//! `op@0.0.0-<first 8 digits of its digest>`, so another build is another version and the same build is the same one.

use super::error::CliError;
use super::terminal::Terminal;
use crate::api::ModuleView;
use crate::module_store::digest_of;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tidegate_core::limits::{JOB_FILE_BYTES_MAX, MODULE_BYTES_MAX, NAME_BYTES_MAX};

#[derive(Debug)]
pub struct JobFile {
    pub name: String,
    pub source: Value,
    /// Paths in the file are relative to this folder.
    pub base: PathBuf,
}

/// Bytes of a file that must not exceed a limit.
fn read_bounded(path: &Path, max: usize, limit: &str) -> Result<Vec<u8>, CliError> {
    let failed = |error: std::io::Error| CliError::usage(format!("read {}: {error}", path.display()));
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > max as u64 {
        return Err(CliError::usage(format!("{} has {bytes} bytes, the limit is {max} ({limit})", path.display())));
    }
    std::fs::read(path).map_err(failed)
}

pub fn read_module(path: &Path) -> Result<Vec<u8>, CliError> {
    read_bounded(path, MODULE_BYTES_MAX, "module_bytes_max")
}

impl JobFile {
    /// TOML, or JSON where the name ends so.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let bytes = read_bounded(path, JOB_FILE_BYTES_MAX, "job_file_bytes_max")?;
        let wrong = |error: String| CliError::usage(format!("{}: {}", path.display(), error.trim_end()));
        let text = String::from_utf8(bytes).map_err(|e| wrong(e.to_string()))?;
        let source: Value = if path.extension().is_some_and(|e| e == "json") {
            serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?
        } else {
            toml::from_str(&text).map_err(|e| wrong(e.to_string()))?
        };
        let Some(name) = source["name"].as_str().map(str::to_owned) else {
            return Err(wrong("has no name".into()).remedy("begin it with name = \"my-job\""));
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let base = folder.canonicalize().map_err(|e| wrong(e.to_string()))?;
        Ok(Self { name, source, base })
    }

    /// Pushes what is named by path and puts the references in the place of the paths.
    pub fn push_modules(
        &mut self,
        terminal: &mut Terminal,
        mut push: impl FnMut(&str, &str, Vec<u8>) -> Result<(ModuleView, bool), CliError>,
    ) -> Result<(), CliError> {
        let Some(operators) = self.source.get_mut("operator").and_then(Value::as_array_mut) else { return Ok(()) };
        for operator in operators {
            let Some(module) = operator.get_mut("module") else { continue };
            let Some(written) = module.as_str().filter(|written| is_path(written)) else { continue };
            let path = self.base.join(written);
            let bytes = read_module(&path)?;
            let name = module_name(&path)?;
            let version = format!("0.0.0-{}", &digest_of(&bytes)[..8]);
            let (view, created) = {
                let _spinner = terminal.spinner(format!("compiling {}", path.display()));
                push(&name, &version, bytes)?
            };
            if created {
                terminal.note(format!("module {} from {}", view.reference(), path.display()));
            }
            *module = view.reference().into();
        }
        Ok(())
    }
}

/// A reference has a version and no folder.
fn is_path(module: &str) -> bool {
    module.ends_with(".wasm") || module.contains('/') || module.contains(std::path::MAIN_SEPARATOR)
}

/// The file's name as far as a module may have it.
fn module_name(path: &Path) -> Result<String, CliError> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let name: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let name: String = name.trim_start_matches(['-', '_']).chars().take(NAME_BYTES_MAX).collect();
    if name.is_empty() {
        return Err(CliError::usage(format!("{} makes no module's name", path.display())).remedy("rename the file"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_references() {
        for path in ["op.wasm", "./op", "../target/op.wasm", "/op"] {
            assert!(is_path(path), "{path}");
        }
        for reference in ["delays@1.2.0", "delays", "a@0.0.0-1234abcd"] {
            assert!(!is_path(reference), "{reference}");
        }
        assert_eq!(module_name(Path::new("x/My Op.v2.wasm")).unwrap(), "my_op_v2");
        assert!(module_name(Path::new("x/__.wasm")).is_err());
    }

    #[test]
    fn a_mistake_in_a_job_file_is_shown_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("job.toml");
        std::fs::write(&path, "name = \"a\"\ninterval = = 3\n").unwrap();
        let error = JobFile::read(&path).unwrap_err();
        assert_eq!(error.code(), 2);
        assert!(error.what.contains("job.toml") && error.what.contains("line 2"), "{}", error.what);
        std::fs::write(&path, "[[source]]\n").unwrap();
        assert!(JobFile::read(&path).unwrap_err().what.contains("has no name"));
    }
}
