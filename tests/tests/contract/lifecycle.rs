//! `describe`, `start`, and what an instance may keep.

use crate::contract;
use tidegate::wasm::instance::{CallError, Death};
use tidegate_core::state_schema::{Reducer, StateKind, TimeDomain, TimeToLive};
use tidegate_tests::guest::{NOW, Setup, module};
use tidegate_tests::rows::row;

/// What both guests say when the job does not name a case.
pub const NOT_CONFIGURED: &str = "the option \"case\" is missing";

#[test]
fn what_a_component_declares_is_what_the_host_knows() {
    let (_, info) = module("contract");
    let descriptor = &info.descriptor;
    assert_eq!((info.world.as_str(), descriptor.name.as_str(), descriptor.inputs), ("processor", "contract", 1));
    assert_eq!((descriptor.keyed, &descriptor.outputs[..]), (true, &["main".to_owned(), "side".into(), "report".into()][..]));
    let state = |name: &str| descriptor.states.iter().find(|state| state.name == name).expect("is declared");
    assert_eq!((state("fixed").kind, state("fixed").value_size), (StateKind::Value, Some(8)));
    assert_eq!((state("map").kind, state("map").map_key_type.as_deref()), (StateKind::Map, Some("bytes")));
    assert_eq!(state("max-f64").kind, StateKind::Reducing(Reducer::MaxF64));
    assert_eq!(state("ttl-processing").ttl, Some(TimeToLive { ms: 1000, domain: TimeDomain::ProcessingTime }));
    assert!(info.imports.iter().any(|name| name.starts_with("tidegate:streaming/state@")), "{:?}", info.imports);
    assert!(!info.has_migration);
}

#[test]
fn start_is_told_where_it_is_and_what_the_job_configures() {
    let mut guest = Setup::new("contract").option("case", "context").option("limit", "15").start();
    let told = guest.ok(&[row("a", "")]).reported("context");
    assert_eq!(told, ["job=job operator=operator task=0 parallelism=1 options=case=context,limit=15"]);
}

#[test]
fn start_is_called_once_in_each_instance_before_anything_else() {
    let mut guest = contract("calls");
    let mut calls = || guest.ok(&[row("a", "")]).reported("calls").concat();
    assert_eq!([calls(), calls(), calls()], ["1", "2", "3"]);
    guest.recycle(&module("contract").0);
    assert_eq!(guest.ok(&[row("a", "")]).reported("calls"), ["1"]);
}

#[test]
fn with_amnesia_what_a_guest_keeps_in_its_instance_shows_in_its_results() {
    let mut guest = Setup::new("contract").option("case", "calls").amnesia().start();
    let mut calls = || guest.ok(&[row("a", "")]).reported("calls").concat();
    assert_eq!([calls(), calls(), calls()], ["1", "1", "1"], "an honest operator gives the same results with and without");
}

#[test]
fn state_and_timers_are_the_same_with_amnesia() {
    for case in ["value-column", "map-many", "list-many", "reducing-many", "timers-event"] {
        let setup = || Setup::new("contract").option("case", case);
        let (mut usual, mut forgetful) = (setup().start(), setup().amnesia().start());
        for round in 0..3 {
            let rows = [row("a", "1").at(round), row("b", "2").at(round), row("a", "3").at(round)];
            assert_eq!(usual.ok(&rows), forgetful.ok(&rows), "{case}");
        }
        let late = tidegate::state::CallTime { watermark: i64::MAX, ..NOW };
        let fire = |guest: &mut tidegate_tests::guest::Guest| guest.fire(TimeDomain::EventTime, late).expect("timers fire");
        assert_eq!(fire(&mut usual), fire(&mut forgetful), "{case}");
    }
}

#[test]
fn a_start_that_fails_says_why() {
    let start = |case: &str| {
        let setup = Setup::new("contract").option("case", case).limits(|limits| limits.call_deadline_ms = 100);
        setup.start().operator.start().expect_err("start fails")
    };
    assert_eq!(start("start-fatal"), CallError::Fatal("start says fatal".to_owned()));
    assert_eq!(start("start-transient"), CallError::Transient("start says transient".to_owned()));
    for (case, how, named) in [
        ("start-trap", Death::Trap, "unreachable"),
        ("start-spin", Death::Deadline, "(limits.deadline)"),
        ("start-undeclared", Death::Violation, "state `undeclared` was not declared"),
        ("start-emit", Death::Violation, "not in `describe` or `start`"),
    ] {
        match start(case) {
            CallError::Died { how: died, message } => {
                assert!(died == how && message.contains(named), "{case}: {died:?} {message}")
            }
            other => panic!("{case}: {other}"),
        }
    }
}

#[test]
fn a_guest_that_was_not_configured_does_not_start() {
    let error = Setup::new("contract").start().operator.start().expect_err("the case is missing");
    assert_eq!(error, CallError::Fatal(NOT_CONFIGURED.to_owned()));
}

#[test]
fn a_start_that_failed_can_be_tried_again() {
    let mut guest = contract("start-transient");
    for _ in 0..3 {
        assert!(matches!(guest.call(&[row("a", "")], NOW), Err(CallError::Transient(_))));
    }
}
