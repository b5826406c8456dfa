//! Builds guest packages of this workspace for tests.
//!
//! A guest is compiled by another compiler target than the test that runs it, so Cargo can't make one a dependency of the other.
//! The test asks here instead: Cargo is called (and does nothing where all is fresh), and says itself where the component is.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// The component of a workspace package, built for `wasm32-wasip2` with the profile `guest`. Panics where it doesn't build: a test
/// can't go on without its guest.
pub fn component(package: &str) -> PathBuf {
    try_component(package).unwrap_or_else(|error| panic!("{error}"))
}

/// The same for those who can go on. What the compiler said is on stderr.
pub fn try_component(package: &str) -> Result<PathBuf, GuestBuildError> {
    static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    // The tests of one process build one after another; Cargo itself locks between processes.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    if let Some(path) = built.get(package) {
        return Ok(path.clone());
    }
    let path = build(package).map_err(|cause| GuestBuildError { package: package.to_string(), cause })?;
    built.insert(package.to_string(), path.clone());
    Ok(path)
}

#[derive(Debug, thiserror::Error)]
#[error("cannot build the guest {package}: {cause}")]
pub struct GuestBuildError {
    package: String,
    cause: String,
}

fn build(package: &str) -> Result<PathBuf, String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("BUG: this package is two folders deep");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(workspace)
        .args(["build", "--quiet", "--profile", "guest", "--target", "wasm32-wasip2", "--package", package])
        .arg("--message-format=json-render-diagnostics")
        // Flags for the host's code (coverage, sanitizers) mean nothing to a guest.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo ended with {}", output.status));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default())
        .filter_map(|name| name.as_str().map(PathBuf::from))
        .rfind(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .ok_or_else(|| "cargo named no .wasm file; is it a cdylib?".to_string())
}
