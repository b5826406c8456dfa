//! What `serve` and `run` say about guests, and the hidden command that is a compiler.

use crate::config::HostConfig;
use tidegate_core::limits::{COMPILE_MEMORY_BYTES, COMPILE_SECONDS, CompileLimits};
use tidegate_core::units::parse_bytes;

#[derive(Debug, clap::Args)]
pub struct GuestArgs {
    /// CPU time that the compiler may take for one component, in seconds.
    #[arg(long, env = "TIDEGATE_COMPILE_SECONDS", value_name = "SECONDS", value_parser = seconds, default_value = "120")]
    compile_seconds: u64,
    /// Memory that the compiler may take for one component, as in `2GiB`.
    #[arg(long, env = "TIDEGATE_COMPILE_MEMORY", value_name = "BYTES", value_parser = memory, default_value = "2GiB")]
    compile_memory: u64,
    /// Give an operator a new instance for every call: results must stay the same, for an instance may be thrown away at any time.
    #[arg(long, env = "TIDEGATE_AMNESIA")]
    amnesia: bool,
}

impl GuestArgs {
    pub fn apply(&self, config: &mut HostConfig) {
        config.compile = CompileLimits { seconds_max: self.compile_seconds, memory_bytes_max: self.compile_memory };
        config.amnesia = self.amnesia;
    }
}

/// The program starts itself with these: nobody else does.
#[derive(Debug, clap::Args)]
pub struct CompileWorkerArgs {
    #[arg(long, value_parser = seconds)]
    seconds: u64,
    #[arg(long, value_parser = memory)]
    memory: u64,
}

impl CompileWorkerArgs {
    pub fn limits(&self) -> CompileLimits {
        CompileLimits { seconds_max: self.seconds, memory_bytes_max: self.memory }
    }
}

fn seconds(text: &str) -> Result<u64, String> {
    let seconds = text.parse::<u64>().map_err(|e| e.to_string())?;
    let (least, most) = COMPILE_SECONDS.into_inner();
    if COMPILE_SECONDS.contains(&seconds) { Ok(seconds) } else { Err(format!("must be {least} to {most} (compile_seconds_max)")) }
}

fn memory(text: &str) -> Result<u64, String> {
    let bytes = text.parse::<u64>().or_else(|_| parse_bytes(text).map_err(|e| e.to_string()))?;
    let (least, most) = COMPILE_MEMORY_BYTES.into_inner();
    if COMPILE_MEMORY_BYTES.contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("must be {least} to {most} bytes (compile_memory_bytes_max)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_limits() {
        let defaults = CompileLimits::default();
        assert_eq!(seconds("120"), Ok(defaults.seconds_max));
        assert_eq!(memory("2GiB"), Ok(defaults.memory_bytes_max));
        assert_eq!(memory("68719476736"), Ok(64 << 30));
    }

    #[test]
    fn what_is_out_of_range_names_the_limit() {
        assert!(seconds("0").unwrap_err().contains("must be 1 to 3600 (compile_seconds_max)"));
        assert!(memory("1MiB").unwrap_err().contains("(compile_memory_bytes_max)"));
        assert!(memory("plenty").is_err() && seconds("soon").is_err());
    }
}
