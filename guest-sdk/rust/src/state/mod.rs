//! Typed handles to keyed state.
//!
//! An operator says `get` and `set` for the key at hand; underneath, a handle fetches what a batch needs in as few calls as the
//! contract allows, keeps it for the length of the batch, and hands everything that changed to the host at the end.
//!
//! Invariants of every handle:
//! * within a call, reads see what earlier records of the call wrote (rejected ones excepted);
//! * nothing reaches the host before the record that wrote it is done, so a rejected record can be undone here;
//! * between calls a handle holds nothing: an instance may be thrown away at any time.
//!
//! Undo needs no work for records that are good: a handle notes the record's number together with what its first write replaces,
//! and a later record simply overwrites that note.

mod arena;
mod list;
mod map;
mod map_cache;
mod reducing;
mod value;

pub use list::ListState;
pub use map::MapState;
pub use reducing::{Count, MaxF64, MaxS64, MinF64, MinS64, Reducer, ReducingState, SumF64, SumS64};
pub use value::ValueState;

use crate::context::{Ctx, NO_SLOT};
use crate::declaration::{StateDeclaration, StateKind, TimeDomain, TimeToLive};

/// What the attribute read from `#[state(…)]`.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct StateOptions {
    pub name: &'static str,
    pub schema_version: u32,
    pub ttl_ms: Option<u64>,
    pub ttl_domain: TimeDomain,
}

impl StateOptions {
    fn declare(
        &self,
        kind: StateKind,
        value_type: String,
        map_key_type: Option<String>,
        size: Option<usize>,
    ) -> StateDeclaration {
        StateDeclaration {
            name: self.name.to_owned(),
            kind,
            value_type,
            map_key_type,
            schema_version: self.schema_version,
            value_size: size.map(|size| u32::try_from(size).expect("a state value of 4 GiB")),
            ttl: self.ttl_ms.map(|ms| TimeToLive { ms, domain: self.ttl_domain }),
        }
    }
}

/// What the attribute calls on every state field.
#[doc(hidden)]
pub trait StateField: Sized {
    fn declare(options: &StateOptions) -> StateDeclaration;
    fn open(name: &'static str) -> Self;
    fn begin(&mut self, keys: u32);
    fn undo(&mut self, record: u32);
    fn finish(&mut self);
}

fn wit_type_of(write: fn(&mut String)) -> String {
    let mut out = String::new();
    write(&mut out);
    out
}

#[inline]
fn slot_of(ctx: &Ctx<'_>) -> u32 {
    debug_assert!(ctx.slot != NO_SLOT, "state belongs to a key: declare the operator `keyed`");
    ctx.slot
}

/// Stored bytes that don't decode are no record's fault, and the host has checked the schema: a trap, with the state's name.
#[cold]
fn undecodable(name: &str, error: &crate::encoding::DecodeError) -> ! {
    panic!("the state {name:?} holds bytes that are not of its declared type: {error}")
}
