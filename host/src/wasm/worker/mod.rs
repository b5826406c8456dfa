//! The compiler in a process of its own.
//!
//! A component is a program for the compiler, and a hostile one can make it run for hours, take all memory, or crash. So the host never
//! compiles: it starts itself as `tidegate compile-worker`, hands the component over and gets machine code back, or a reason.
//!
//! ```text
//!  host                                         worker (the same binary)
//!  component's bytes ──── stdin ──────────────► bounds itself: CPU time, address space, no files, a low priority
//!                                               compile ─► link ─► describe (a guest call like any other)
//!  info, machine code ◄── stdout ────────────── length, JSON, machine code
//!  or: how it ended   ◄── exit status, stderr
//! ```
//!
//! Invariants:
//! * the worker bounds itself before it reads a byte of the component, and the host kills it when its time on the wall is up;
//! * at most `compilers_max` of them run at once, whoever asks; others wait;
//! * whatever becomes of the worker is an error with a name: a limit by its name, a crash by its signal;
//! * the worker has no environment, no file and no socket of the host's. It ends when the host ends.
//!
//! What this is not: a sandbox for the compiler's bugs. Its machine code is run by the host as if the host had made it.

mod child;
mod parent;

pub use child::serve;
pub use parent::CompileWorkers;

use super::ModuleError;
use super::inspect::ModuleInfo;
use serde::{Deserialize, Serialize};

/// The hidden subcommand of `cli`.
const SUBCOMMAND: &str = "compile-worker";

/// What a worker says, as JSON behind its length in four bytes. Machine code follows an `Ok`.
#[derive(Debug, Serialize, Deserialize)]
struct Answer(Result<ModuleInfo, ModuleError>);

const LENGTH_BYTES: usize = 4;
