//! Upper-cases values, without the SDK: the world `record-processor` on what wit-bindgen makes of the contract.
//!
//! What a language needs for a first operator is four functions. One record a call is about ten times dearer than batches.

#[allow(clippy::all)]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "record-processor" });
}

use bindings::exports::tidegate::streaming::lifecycle::{Descriptor, Guest as Lifecycle, TaskContext};
use bindings::exports::tidegate::streaming::record_processing::{Guest as RecordProcessing, Moment};
use bindings::tidegate::streaming::output::{emit_record, forward};
use bindings::tidegate::streaming::types::{Failure, RejectedRow, StreamRecord, TimeDomain};

struct Upper;

impl Lifecycle for Upper {
    fn describe() -> Descriptor {
        Descriptor {
            name: "record-upper".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            inputs: 1,
            keyed: false,
            outputs: vec!["main".to_owned()],
            states: Vec::new(),
        }
    }

    fn start(context: TaskContext) -> Result<(), Failure> {
        match context.options.first() {
            None => Ok(()),
            Some(option) => Err(Failure::Fatal(format!("the option {:?} is not known: there are none", option.name))),
        }
    }
}

impl RecordProcessing for Upper {
    fn process(_input: u32, item: StreamRecord, _now: Moment) -> Result<(), Failure> {
        let Some(value) = item.value else {
            // A tombstone has nothing to change. The record at hand is row 0.
            forward(0, &[0]);
            return Ok(());
        };
        let upper = upper(&value).map_err(|reason| Failure::BadRow(RejectedRow { row: 0, reason }))?;
        // Key, timestamp, change kind and headers stay.
        emit_record(0, &StreamRecord { value: Some(upper.into_bytes()), ..item });
        Ok(())
    }

    fn on_timer(_key: Vec<u8>, _domain: TimeDomain, time: i64, _tag: u64, _now: Moment) -> Result<(), Failure> {
        Err(Failure::Fatal(format!("a timer for {time}, and none was ever set")))
    }
}

fn upper(value: &[u8]) -> Result<String, String> {
    std::str::from_utf8(value).map(str::to_uppercase).map_err(|error| format!("the value is not UTF-8: {error}"))
}

bindings::export!(Upper with_types_in bindings);

#[cfg(test)]
mod tests {
    use super::upper;

    #[test]
    fn text_is_upper_cased_and_bytes_are_refused() {
        assert_eq!(upper("stra\u{df}e".as_bytes()), Ok("STRASSE".to_owned()));
        assert!(upper(&[0xff]).is_err_and(|reason| reason.starts_with("the value is not UTF-8")));
    }
}
