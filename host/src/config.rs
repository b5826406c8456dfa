//! Where a host keeps its things, where it listens, and whom it lets in.
//!
//! ```text
//!  <data>/modules/   components by digest, names, compiled code
//!  <data>/jobs/      a folder for each job: its definition, checkpoints, decisions, savepoints, dead letters
//! ```

use crate::http::{self, Access, AccessError, HttpConfig, TlsError};
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
pub enum ConfigError {
    #[error("{what} {}: {source}", folder.display())]
    Folder { what: &'static str, folder: PathBuf, source: io::Error },
    #[error("read {what} {}: {source}", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("tokens of {origin}: {source}")]
    Tokens { origin: String, source: AccessError },
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("TLS needs a certificate and its key, and one of them is missing")]
    HalfOfTls,
    #[error("listen on {address}: who reaches it could run jobs here, because no token is asked for")]
    Exposed { address: SocketAddr },
}

impl ConfigError {
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Folder { .. } => "check that the folder is there and writable".into(),
            Self::File { .. } => "check the path and who may read it".into(),
            Self::Tokens { .. } => {
                "write one token a line, as `read:TOKEN` or `write:TOKEN`; `openssl rand -hex 24` makes a good one".into()
            }
            Self::Tls(_) => return None,
            Self::HalfOfTls => "give both --tls-cert and --tls-key".into(),
            Self::Exposed { .. } => {
                "set tokens (--token-file, or TIDEGATE_TOKENS); where everyone who reaches it may do everything, say --insecure"
                    .into()
            }
        })
    }

    /// The user asked for what can't be, rather than that something failed.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Tokens { .. } | Self::HalfOfTls | Self::Exposed { .. })
    }
}

/// How the API is to be served, as the command line says it.
#[derive(Debug, Default)]
pub struct HttpOptions {
    pub token_file: Option<PathBuf>,
    /// From the environment.
    pub tokens: Option<String>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub metrics_open: bool,
    /// Serve those who have no token, wherever they come from.
    pub insecure: bool,
    /// Requests of one client, a second. 0: no limit.
    pub rate_limit: Option<u32>,
}

impl HttpOptions {
    /// Reads what the options name, and refuses an address that others reach where no token is asked for.
    pub fn resolve(&self, listen: &SocketAddr) -> Result<HttpConfig, ConfigError> {
        let mut text = String::new();
        let mut origin = Vec::new();
        if let Some(path) = &self.token_file {
            text = String::from_utf8_lossy(&read("the token file", path)?).into_owned();
            origin.push(path.display().to_string());
        }
        if let Some(tokens) = &self.tokens {
            text.push('\n');
            text.push_str(tokens);
            origin.push("TIDEGATE_TOKENS".into());
        }
        let access = match origin.is_empty() {
            true => Access::default(),
            false => Access::parse(&text).map_err(|source| ConfigError::Tokens { origin: origin.join(" and "), source })?,
        };
        if access.is_open() && is_exposed(listen) && !self.insecure {
            return Err(ConfigError::Exposed { address: *listen });
        }
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Some(http::tls(&read("the certificate", cert)?, &read("the key", key)?)?),
            (None, None) => None,
            _ => return Err(ConfigError::HalfOfTls),
        };
        let mut config = HttpConfig { access, metrics_open: self.metrics_open, tls, ..Default::default() };
        config.limits.requests_per_second_max = self.rate_limit.unwrap_or(config.limits.requests_per_second_max);
        Ok(config)
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|source| ConfigError::File { what, path: path.to_owned(), source })
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
    move |source| ConfigError::Folder { what, folder, source }
}

/// Reachable from elsewhere.
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

    fn refused(options: HttpOptions, listen: &str) -> ConfigError {
        options.resolve(&listen.parse().unwrap()).err().unwrap_or_else(|| panic!("{listen} is served"))
    }

    #[test]
    fn an_address_that_others_reach_needs_tokens_or_a_word() {
        for listen in ["0.0.0.0:8080", "[::]:0", "192.0.2.1:80"] {
            let error = refused(HttpOptions::default(), listen);
            assert!(error.is_usage() && error.to_string().contains(listen), "{error}");
            assert!(error.remedy().unwrap().contains("--insecure"));
            let insecure = HttpOptions { insecure: true, ..Default::default() };
            assert!(insecure.resolve(&listen.parse().unwrap()).is_ok());
            let tokens = HttpOptions { tokens: Some("write:0123456789abcdef".into()), ..Default::default() };
            assert!(!tokens.resolve(&listen.parse().unwrap()).unwrap().access.is_open());
        }
        for listen in ["127.0.0.1:8080", "[::1]:0"] {
            assert!(HttpOptions::default().resolve(&listen.parse().unwrap()).unwrap().access.is_open());
        }
    }

    #[test]
    fn files_that_are_missing_or_wrong_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        let options = || HttpOptions { token_file: Some(file.clone()), ..Default::default() };
        assert!(refused(options(), "127.0.0.1:0").to_string().contains("tokens"));
        std::fs::write(&file, "# none yet\n").unwrap();
        assert!(refused(options(), "127.0.0.1:0").to_string().contains("no token"), "an empty list is not an open door");
        std::fs::write(&file, "read:0123456789abcdef\n").unwrap();
        let both = HttpOptions { tokens: Some("write:fedcba9876543210".into()), ..options() };
        let access = both.resolve(&"127.0.0.1:0".parse().unwrap()).unwrap().access;
        assert!(access.role_of("0123456789abcdef").is_some() && access.role_of("fedcba9876543210").is_some());
        let half = HttpOptions { tls_cert: Some(file.clone()), ..Default::default() };
        assert!(matches!(refused(half, "127.0.0.1:0"), ConfigError::HalfOfTls));
        let wrong = HttpOptions { tls_cert: Some(file.clone()), tls_key: Some(file.clone()), ..Default::default() };
        assert!(matches!(refused(wrong, "127.0.0.1:0"), ConfigError::Tls(TlsError::NoCertificate)));
    }
}
