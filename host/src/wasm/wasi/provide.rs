//! The functions of WASI that do something: print to the log, read the call's clock, draw from the call's seed, sleep.
//!
//! They are typed, so a component that imports one of them with another type fails to link; it never reaches a closure here.

use super::output::{Stream, write};
use super::state::READY;
use super::{WasiState, WasiTrap, WasiView};
use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower, Resource, ResourceType};
use wasmtime::{Result, StoreContextMut};

// Resources are names here; what they stand for is in their representation.
struct Pollable;
struct InputStream;
struct OutputStream;
struct IoError;
struct Network;
/// Everything else (descriptors, sockets, terminals): a guest never gets one, so one type does for all.
struct Inert;

const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// Bytes that `check-write` permits at once. Runtimes keep a buffer of this size at most.
const WRITE_PERMIT_BYTES: u64 = 64 << 10;

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    #[allow(dead_code, reason = "the type has it; nothing here fails that way")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    #[allow(dead_code, reason = "the type has it; denials answer it without this type")]
    Closed,
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    #[component(name = "seconds")]
    seconds: u64,
    #[component(name = "nanoseconds")]
    nanoseconds: u32,
}

type Cx<'a, T> = StoreContextMut<'a, T>;

fn wasi<'a, T: WasiView>(cx: &'a mut Cx<'_, T>) -> &'a mut WasiState {
    cx.data_mut().wasi()
}

/// Defines a resource. Interfaces that use one of another interface import it again under the same name, so the name is enough.
pub(super) fn resource<T: WasiView + 'static>(at: &mut LinkerInstance<'_, T>, name: &str) -> Result<()> {
    let counted = |mut cx: Cx<'_, T>, _| {
        wasi(&mut cx).close_handle();
        Ok(())
    };
    match name {
        "pollable" => at.resource(name, ResourceType::host::<Pollable>(), |mut cx, rep| {
            wasi(&mut cx).close_pollable(rep);
            Ok(())
        }),
        "input-stream" => at.resource(name, ResourceType::host::<InputStream>(), counted),
        "output-stream" => at.resource(name, ResourceType::host::<OutputStream>(), counted),
        "network" => at.resource(name, ResourceType::host::<Network>(), counted),
        "error" => at.resource(name, ResourceType::host::<IoError>(), |_, _| Ok(())),
        _ => at.resource(name, ResourceType::host::<Inert>(), |_, _| Ok(())),
    }
}

/// Defines `item` of `interface` (without its version) if it is one of those that do something.
pub(super) fn function<T: WasiView + 'static>(
    at: &mut LinkerInstance<'_, T>,
    interface: &str,
    item: &str,
    full: &str,
) -> Result<bool> {
    match interface {
        "cli/exit" | "cli/stdin" | "cli/stdout" | "cli/stderr" => cli(at, interface, item, full),
        "io/streams" => streams(at, item, full),
        "io/poll" => poll(at, item, full),
        "clocks/wall-clock" | "clocks/monotonic-clock" => clocks(at, interface, item, full),
        "random/random" | "random/insecure" | "random/insecure-seed" => random(at, interface, item, full),
        "sockets/instance-network" if item == "instance-network" => {
            // The type leaves no way to say no. What one can do with a network does.
            at.func_wrap(item, opens::<T, Network>(full, READY))?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// A function without parameters that hands out a handle.
fn opens<T: WasiView + 'static, R: 'static>(
    full: &str,
    rep: u32,
) -> impl Fn(Cx<'_, T>, ()) -> Result<(Resource<R>,)> + use<T, R> {
    let full = full.to_string();
    move |mut cx, ()| {
        wasi(&mut cx).open_handle(&full)?;
        Ok((Resource::new_own(rep),))
    }
}

fn cli<T: WasiView + 'static>(at: &mut LinkerInstance<'_, T>, interface: &str, item: &str, full: &str) -> Result<bool> {
    match (interface, item) {
        ("cli/stdin", "get-stdin") => at.func_wrap(item, opens::<T, InputStream>(full, READY))?,
        ("cli/stdout", "get-stdout") => at.func_wrap(item, opens::<T, OutputStream>(full, STDOUT))?,
        ("cli/stderr", "get-stderr") => at.func_wrap(item, opens::<T, OutputStream>(full, STDERR))?,
        ("cli/exit", "exit") => {
            let function = full.to_string();
            at.func_wrap(item, move |_: Cx<'_, T>, (status,): (Result<(), ()>,)| -> Result<()> {
                let status = match status {
                    Ok(()) => "status ok",
                    Err(()) => "status error",
                };
                Err(WasiTrap::Exit { function: function.clone(), status: status.to_string() }.into())
            })?
        }
        ("cli/exit", "exit-with-code") => {
            let function = full.to_string();
            at.func_wrap(item, move |_: Cx<'_, T>, (code,): (u8,)| -> Result<()> {
                Err(WasiTrap::Exit { function: function.clone(), status: format!("status {code}") }.into())
            })?
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Reading, skipping and splicing are denials: closed.
fn streams<T: WasiView + 'static>(at: &mut LinkerInstance<'_, T>, item: &str, full: &str) -> Result<bool> {
    type Done = (Result<(), StreamError>,);
    match item {
        "[method]output-stream.check-write" => {
            at.func_wrap(item, |_: Cx<'_, T>, (_,): (Resource<OutputStream>,)| Ok((Ok::<_, StreamError>(WRITE_PERMIT_BYTES),)))?
        }
        "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush" => {
            at.func_wrap(item, |mut cx: Cx<'_, T>, (stream, bytes): (Resource<OutputStream>, Vec<u8>)| -> Result<Done> {
                let stream = if stream.rep() == STDOUT { Stream::Stdout } else { Stream::Stderr };
                write(cx.data_mut(), stream, &bytes);
                Ok((Ok(()),))
            })?
        }
        "[method]output-stream.flush" | "[method]output-stream.blocking-flush" => {
            at.func_wrap(item, |_: Cx<'_, T>, (_,): (Resource<OutputStream>,)| -> Result<Done> { Ok((Ok(()),)) })?
        }
        "[method]output-stream.subscribe" => {
            let open = opens::<T, Pollable>(full, READY);
            at.func_wrap(item, move |cx: Cx<'_, T>, (_,): (Resource<OutputStream>,)| open(cx, ()))?
        }
        "[method]input-stream.subscribe" => {
            let open = opens::<T, Pollable>(full, READY);
            at.func_wrap(item, move |cx: Cx<'_, T>, (_,): (Resource<InputStream>,)| open(cx, ()))?
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn poll<T: WasiView + 'static>(at: &mut LinkerInstance<'_, T>, item: &str, full: &str) -> Result<bool> {
    match item {
        "[method]pollable.ready" => at.func_wrap(item, |mut cx: Cx<'_, T>, (pollable,): (Resource<Pollable>,)| {
            let state = wasi(&mut cx);
            Ok((state.clock.has_reached(state.deadline(pollable.rep())),))
        })?,
        "[method]pollable.block" => at.func_wrap(item, |mut cx: Cx<'_, T>, (pollable,): (Resource<Pollable>,)| {
            let state = wasi(&mut cx);
            state.clock.sleep_until(state.deadline(pollable.rep()));
            Ok(())
        })?,
        "poll" => {
            let full = full.to_string();
            at.func_wrap(item, move |mut cx: Cx<'_, T>, (pollables,): (Vec<Resource<Pollable>>,)| {
                Ok((ready(wasi(&mut cx), &full, &pollables)?,))
            })?
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Indices of the pollables that are ready; where none is, the clock moves on to the first that will be.
fn ready(state: &mut WasiState, full: &str, pollables: &[Resource<Pollable>]) -> Result<Vec<u32>, WasiTrap> {
    if pollables.len() > state.limits.handles_max {
        return Err(WasiTrap::Limit {
            function: full.to_string(),
            attempted: format!("a list of {} pollables", pollables.len()),
            max: state.limits.handles_max as u64,
            limit: "handles_max",
        });
    }
    let deadlines: Vec<u64> = pollables.iter().map(|pollable| state.deadline(pollable.rep())).collect();
    let Some(first) = deadlines.iter().min() else {
        return Err(WasiTrap::Misuse { function: full.to_string(), reason: "the list of pollables is empty" });
    };
    state.clock.sleep_until(*first);
    let reached = (0..).zip(&deadlines).filter(|(_, deadline)| state.clock.has_reached(**deadline));
    Ok(reached.map(|(index, _)| index).collect())
}

fn clocks<T: WasiView + 'static>(at: &mut LinkerInstance<'_, T>, interface: &str, item: &str, full: &str) -> Result<bool> {
    match (interface, item) {
        ("clocks/wall-clock", "now") => at.func_wrap(item, |mut cx: Cx<'_, T>, ()| {
            let (seconds, nanoseconds) = wasi(&mut cx).clock.wall();
            Ok((Datetime { seconds, nanoseconds },))
        })?,
        // The time of a call is in milliseconds.
        ("clocks/wall-clock", "resolution") => {
            at.func_wrap(item, |_: Cx<'_, T>, ()| Ok((Datetime { seconds: 0, nanoseconds: 1_000_000 },)))?
        }
        ("clocks/monotonic-clock", "now") => {
            at.func_wrap(item, |mut cx: Cx<'_, T>, ()| Ok((wasi(&mut cx).clock.monotonic(),)))?
        }
        ("clocks/monotonic-clock", "resolution") => at.func_wrap(item, |_: Cx<'_, T>, ()| Ok((1u64,)))?,
        ("clocks/monotonic-clock", "subscribe-instant") => {
            let full = full.to_string();
            at.func_wrap(item, move |mut cx: Cx<'_, T>, (deadline_ns,): (u64,)| {
                Ok((Resource::<Pollable>::new_own(wasi(&mut cx).open_timer(&full, deadline_ns)?),))
            })?
        }
        ("clocks/monotonic-clock", "subscribe-duration") => {
            let full = full.to_string();
            at.func_wrap(item, move |mut cx: Cx<'_, T>, (duration_ns,): (u64,)| {
                let state = wasi(&mut cx);
                let deadline_ns = state.clock.after(duration_ns);
                Ok((Resource::<Pollable>::new_own(state.open_timer(&full, deadline_ns)?),))
            })?
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn random<T: WasiView + 'static>(at: &mut LinkerInstance<'_, T>, interface: &str, item: &str, full: &str) -> Result<bool> {
    match (interface, item) {
        ("random/random", "get-random-u64") => {
            at.func_wrap(item, |mut cx: Cx<'_, T>, ()| Ok((wasi(&mut cx).random.secure_u64(),)))?
        }
        ("random/insecure", "get-insecure-random-u64") => {
            at.func_wrap(item, |mut cx: Cx<'_, T>, ()| Ok((wasi(&mut cx).random.insecure_u64(),)))?
        }
        ("random/random", "get-random-bytes") => {
            let full = full.to_string();
            at.func_wrap(item, move |mut cx: Cx<'_, T>, (len,): (u64,)| {
                let state = wasi(&mut cx);
                let len = random_len(state, &full, len)?;
                Ok((state.random.secure_bytes(len),))
            })?
        }
        ("random/insecure", "get-insecure-random-bytes") => {
            let full = full.to_string();
            at.func_wrap(item, move |mut cx: Cx<'_, T>, (len,): (u64,)| {
                let state = wasi(&mut cx);
                let len = random_len(state, &full, len)?;
                Ok((state.random.insecure_bytes(len),))
            })?
        }
        ("random/insecure-seed", "insecure-seed") => {
            at.func_wrap(item, |mut cx: Cx<'_, T>, ()| Ok((wasi(&mut cx).random.insecure_seed(),)))?
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn random_len(state: &WasiState, full: &str, len: u64) -> Result<usize, WasiTrap> {
    let max = state.limits.random_bytes_max;
    match usize::try_from(len) {
        Ok(bytes) if len <= max => Ok(bytes),
        _ => Err(WasiTrap::Limit {
            function: full.to_string(),
            attempted: format!("a request for {len} random bytes"),
            max,
            limit: "random_bytes_max",
        }),
    }
}
