//! Where a host keeps its things and where it listens.
//!
//! ```text
//!  <data>/modules/   components by digest, names, compiled code
//!  <data>/jobs/      a folder for each job: its definition, checkpoints, decisions, savepoints, dead letters
//! ```

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tidegate_core::limits::CompileLimits;

pub const LISTEN_DEFAULT: &str = "127.0.0.1:8080";

/// All folders are absolute: what is stored must not depend on where the host was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfig {
    pub data: PathBuf,
    /// Relative paths of jobs that are created in this host begin here.
    pub base: PathBuf,
    /// What the compiler may take for one component.
    pub compile: CompileLimits,
    /// A new instance for every call of a guest: whatever a guest keeps in its instance is lost, as it may be at any time.
    pub amnesia: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {source}", folder.display())]
pub struct ConfigError {
    what: &'static str,
    folder: PathBuf,
    source: io::Error,
}

impl HostConfig {
    /// Makes the data folder if it is missing. `base` must be there.
    pub fn resolve(data: &Path, base: &Path) -> Result<Self, ConfigError> {
        crate::durable_file::create_folder(data).map_err(error("make the data folder", data))?;
        let data = data.canonicalize().map_err(error("find the data folder", data))?;
        let base = base.canonicalize().map_err(error("find the folder that paths of jobs begin in", base))?;
        Ok(Self { data, base, compile: CompileLimits::default(), amnesia: false })
    }

    pub fn modules(&self) -> PathBuf {
        self.data.join("modules")
    }

    pub fn jobs(&self) -> PathBuf {
        self.data.join("jobs")
    }
}

fn error(what: &'static str, folder: &Path) -> impl FnOnce(io::Error) -> ConfigError {
    let folder = folder.to_owned();
    move |source| ConfigError { what, folder, source }
}

/// Reachable from elsewhere. As long as there is no authentication, that is worth a warning.
pub fn is_exposed(listen: &SocketAddr) -> bool {
    !listen.ip().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_become_absolute_and_a_missing_base_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let config = HostConfig::resolve(&folder.path().join("a/b"), folder.path()).unwrap();
        assert!(config.jobs().is_absolute() && config.modules().starts_with(&config.data));
        let error = HostConfig::resolve(folder.path(), &folder.path().join("none")).unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
    }
}
