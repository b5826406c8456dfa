//! Says no in the way a function's type allows.
//!
//! A runtime that probes for a file or a socket handles an error and goes on; a trap would take the record down. So: err with the
//! case that comes closest to "you may not", none, or an empty list. Where the type leaves no way to say no, the call traps.

use super::{WasiTrap, WasiView};
use wasmtime::StoreContextMut;
use wasmtime::component::types::{ComponentFunc, Type};
use wasmtime::component::{LinkerInstance, Val};

/// Error cases that say "you may not", the fittest first: of wasi:filesystem, wasi:sockets, wasi:io.
const CASES: [&str; 6] = ["access", "access-denied", "not-permitted", "closed", "not-supported", "unsupported"];

/// Defines `item` as a denial.
pub(super) fn function<T: WasiView + 'static>(
    at: &mut LinkerInstance<'_, T>,
    item: &str,
    full: &str,
    ty: &ComponentFunc,
) -> wasmtime::Result<()> {
    let answer = denial(ty);
    let full = full.to_string();
    at.func_new(item, move |mut cx, _, params, results| {
        for param in params {
            release(&mut cx, param)?;
        }
        match (&answer, results) {
            (Some(answer), [result]) => *result = answer.clone(),
            _ => return Err(WasiTrap::NotAvailable { function: full.clone() }.into()),
        }
        Ok(())
    })
}

/// The answer that says no, or none where the type has no such answer.
fn denial(ty: &ComponentFunc) -> Option<Val> {
    let mut results = ty.results();
    match (results.next(), results.next()) {
        (Some(Type::Result(result)), None) => {
            let err = match result.err() {
                None => None,
                Some(ty) => Some(Box::new(error(&ty)?)),
            };
            Some(Val::Result(Err(err)))
        }
        (Some(Type::Option(_)), None) => Some(Val::Option(None)),
        (Some(Type::List(_)), None) => Some(Val::List(Vec::new())),
        _ => None,
    }
}

fn error(ty: &Type) -> Option<Val> {
    match ty {
        Type::Enum(cases) => choose(cases.names()).map(Val::Enum),
        // A case with a payload would need a value of it.
        Type::Variant(variant) => {
            choose(variant.cases().filter(|case| case.ty.is_none()).map(|case| case.name)).map(|name| Val::Variant(name, None))
        }
        Type::String => Some(Val::String("not available to operators".to_string())),
        _ => None,
    }
}

fn choose<'a>(cases: impl Iterator<Item = &'a str>) -> Option<String> {
    let rank = |name: &str| CASES.iter().position(|case| *case == name).unwrap_or(CASES.len());
    cases.min_by_key(|name| rank(name)).map(str::to_string)
}

/// Gives back the handles inside a parameter: each one that a guest lends or hands over holds a place in the store's table until
/// then, and a guest can call as often as it likes.
fn release<T: WasiView + 'static>(cx: &mut StoreContextMut<'_, T>, value: &Val) -> wasmtime::Result<()> {
    match value {
        Val::Resource(resource) => resource.resource_drop(&mut *cx)?,
        Val::List(values) | Val::Tuple(values) | Val::FixedLengthList(values) => {
            for value in values {
                release(cx, value)?;
            }
        }
        Val::Map(entries) => {
            for (key, value) in entries {
                release(cx, key)?;
                release(cx, value)?;
            }
        }
        Val::Record(fields) => {
            for (_, value) in fields {
                release(cx, value)?;
            }
        }
        Val::Variant(_, Some(value)) | Val::Option(Some(value)) | Val::Result(Ok(Some(value)) | Err(Some(value))) => {
            release(cx, value)?
        }
        _ => {}
    }
    Ok(())
}
