//! The side of the worker: bounds itself, compiles one component, ends.

use super::Answer;
use crate::wasm::engine::WasmEngine;
use crate::wasm::{ModuleError, inspect};
use std::io::{self, Read, Write};
use tidegate_core::limits::{CompileLimits, DESCRIBE_MEMORY_BYTES_MAX, MEMORIES_MAX, MODULE_BYTES_MAX};

/// Address space that the engine reserves for one linear memory, guard pages included. Reserved is not used.
const RESERVED_PER_MEMORY: u64 = 5 << 30;
/// Lets the jobs' tasks go first: an upload is in no hurry.
const NICENESS: i32 = 5;

/// The whole life of a worker. Returns the exit code; a limit that is met ends the process before.
pub fn serve(limits: CompileLimits) -> u8 {
    match work(limits) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("compile worker: {error}");
            1
        }
    }
}

fn work(limits: CompileLimits) -> io::Result<()> {
    confine(limits)?;
    let mut component = Vec::new();
    io::stdin().lock().take(MODULE_BYTES_MAX as u64 + 1).read_to_end(&mut component)?;
    let engine = WasmEngine::new().map_err(|error| io::Error::other(format!("{error:#}")))?;
    // Who asked knows the digest.
    let compiled = inspect::compile(&engine, &component).map_err(|error| out_of_memory(error, limits));
    // Instances reserve more address space than the compiler may have. What they use of it has limits of its own.
    give_address_space(limits.memory_bytes_max + DESCRIBE_MEMORY_BYTES_MAX as u64 + MEMORIES_MAX as u64 * RESERVED_PER_MEMORY)?;
    let inspected = compiled.and_then(|compiled| inspect::inspect_compiled(&engine, compiled, component.len(), ""));
    let (answer, precompiled) = match inspected {
        Ok(inspected) => (Answer(Ok(inspected.info)), inspected.precompiled),
        Err(error) => (Answer(Err(error)), Vec::new()),
    };
    let json = serde_json::to_vec(&answer)?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(&(json.len() as u32).to_le_bytes())?;
    stdout.write_all(&json)?;
    stdout.write_all(&precompiled)?;
    stdout.flush()
}

/// A mapping that the kernel refused comes back as an error of the compiler, not as an abort of the process.
fn out_of_memory(error: ModuleError, limits: CompileLimits) -> ModuleError {
    match &error {
        ModuleError::DoesNotCompile(why) if why.contains("(os error 12)") => {
            ModuleError::CompileTooLarge { bytes: limits.memory_bytes_max }
        }
        _ => error,
    }
}

#[cfg(unix)]
fn confine(limits: CompileLimits) -> io::Result<()> {
    set_limit(libc::RLIMIT_CORE, 0, 0)?;
    // The first ends the process by a signal of its own, which names the limit; the second is for one that would ignore it.
    set_limit(libc::RLIMIT_CPU, limits.seconds_max, limits.seconds_max + 1)?;
    set_limit(libc::RLIMIT_AS, limits.memory_bytes_max, libc::RLIM_INFINITY)?;
    stay_behind();
    Ok(())
}

#[cfg(unix)]
fn give_address_space(bytes: u64) -> io::Result<()> {
    set_limit(libc::RLIMIT_AS, bytes, bytes)
}

#[cfg(target_os = "linux")]
type Resource = libc::__rlimit_resource_t;
#[cfg(all(unix, not(target_os = "linux")))]
type Resource = libc::c_int;

#[cfg(unix)]
#[allow(unsafe_code)]
fn set_limit(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft as libc::rlim_t, rlim_max: hard as libc::rlim_t };
    // SAFETY: the call reads the struct that the pointer leads to, and keeps nothing of it.
    if unsafe { libc::setrlimit(resource, &limit) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(unix)]
#[allow(unsafe_code)]
fn stay_behind() {
    // SAFETY: both calls take numbers only. Where they are refused, the worker is less polite and as right.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS);
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
}

#[cfg(not(unix))]
fn confine(_: CompileLimits) -> io::Result<()> {
    // The host's clock on the wall is the only bound here.
    Ok(())
}

#[cfg(not(unix))]
fn give_address_space(_: u64) -> io::Result<()> {
    Ok(())
}
