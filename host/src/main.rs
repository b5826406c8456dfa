//! The `tidegate` program. Everything is in the library; here are only what a process has one of.

use std::process::ExitCode;
use tidegate::cli::{self, Terminal};
use tidegate::job::Connected;

/// Batches are allocated on one thread and freed on another, which is what this allocator is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A test that asks for a crash at a point that is not there must not pass.
    if let Err(error) = tidegate::fault::arm() {
        eprintln!("error: {error}");
        return ExitCode::from(2);
    }
    cli::main(std::env::args_os(), &Connected::default(), Terminal::of_the_process())
}
