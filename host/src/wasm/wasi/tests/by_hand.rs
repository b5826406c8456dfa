//! Components in text, one function at a time.

use super::*;

/// A component that exports `run`, which calls one function without parameters and gives back its number.
fn calls(interface: &str, function: &str) -> Guest {
    wat(&format!(
        r#"(component
            (import "{interface}" (instance $i (export "{function}" (func (result u64)))))
            (core func $f (canon lower (func $i "{function}")))
            (core module $m
                (import "" "f" (func $f (result i64)))
                (func (export "run") (result i64) call $f))
            (core instance $c (instantiate $m (with "" (instance (export "f" (func $f))))))
            (func (export "run") (result u64) (canon lift (core func $c "run"))))"#
    ))
}

#[test]
fn every_patch_of_0_2_links_under_the_name_it_has() {
    for patch in 0..=12 {
        let mut guest = calls(&format!("wasi:clocks/monotonic-clock@0.2.{patch}"), "now");
        guest.store.data_mut().wasi().begin_call(7, 0);
        assert_eq!(guest.number().expect("runs"), 7_000_001, "0.2.{patch}");
    }
}

#[test]
fn two_versions_in_one_component_share_their_resources() {
    // Rust's standard library and an operator's own bindings rarely agree on a version.
    let text = r#"(component
        (import "wasi:io/poll@0.2.0" (instance $old
            (export "pollable" (type $p (sub resource)))
            (export "[method]pollable.ready" (func (param "self" (borrow $p)) (result bool)))))
        (import "wasi:io/poll@0.2.12" (instance $new (export "pollable" (type (sub resource)))))
        (alias export $new "pollable" (type $pollable))
        (import "wasi:clocks/monotonic-clock@0.2.3" (instance $clock
            (alias outer 1 $pollable (type $p))
            (export "pollable" (type $q (eq $p)))
            (export "subscribe-duration" (func (param "when" u64) (result (own $q))))))
        (core func $subscribe (canon lower (func $clock "subscribe-duration")))
        (core func $drop (canon resource.drop $pollable))
        (core module $m
            (import "" "subscribe" (func $subscribe (param i64) (result i32)))
            (import "" "drop" (func $drop (param i32)))
            (func (export "run") (result i64)
                (call $drop (call $subscribe (i64.const 5)))
                i64.const 1))
        (core instance $c (instantiate $m (with "" (instance
            (export "subscribe" (func $subscribe)) (export "drop" (func $drop))))))
        (func (export "run") (result u64) (canon lift (core func $c "run"))))"#;
    let mut guest = wat(text);
    assert_eq!(guest.number().expect("runs"), 1);
    assert_eq!(guest.store.data_mut().wasi().handles_open(), 0, "the dropped pollable is gone");
}

#[test]
fn handles_that_a_guest_never_drops_end_at_the_limit() {
    let mut guest = wat(r#"(component
        (import "wasi:cli/stdout@0.2.0" (instance $i
            (export "output-stream" (type $s (sub resource)))
            (export "get-stdout" (func (result (own $s))))))
        (core func $f (canon lower (func $i "get-stdout")))
        (core module $m
            (import "" "f" (func $f (result i32)))
            (func (export "run") (result i64) (loop (drop (call $f)) (br 0)) unreachable))
        (core instance $c (instantiate $m (with "" (instance (export "f" (func $f))))))
        (func (export "run") (result u64) (canon lift (core func $c "run"))))"#);
    let WasiTrap::Limit { limit, max, .. } = guest.trap() else { panic!("a limit") };
    assert_eq!((limit, max), ("handles_max", 1024));
    assert_eq!(guest.store.data_mut().wasi().handles_open(), 1024);
}

#[test]
fn more_random_bytes_than_the_limit_trap_by_its_name() {
    let mut guest = wat(r#"(component
        (import "wasi:random/random@0.2.3" (instance $i (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
        (core module $memory
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 64))
        (core instance $mem (instantiate $memory))
        (core func $f (canon lower (func $i "get-random-bytes")
            (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
        (core module $m
            (import "" "f" (func $f (param i64 i32)))
            (func (export "run") (result i64) (call $f (i64.const 0x7fffffffffffffff) (i32.const 0)) i64.const 0))
        (core instance $c (instantiate $m (with "" (instance (export "f" (func $f))))))
        (func (export "run") (result u64) (canon lift (core func $c "run"))))"#);
    let trap = guest.trap();
    let WasiTrap::Limit { limit, .. } = &trap else { panic!("a limit, not {trap}") };
    assert_eq!(*limit, "random_bytes_max");
    assert!(trap.to_string().contains("wasi:random/random@0.2.3#get-random-bytes"), "{trap}");
    assert!(trap.to_string().contains("9223372036854775807"), "{trap}");
}

#[test]
fn a_function_that_cannot_say_no_traps_by_name() {
    let mut guest = calls("wasi:clocks/brand-new@0.2.9", "number-of-moons");
    let trap = guest.trap();
    assert!(matches!(trap, WasiTrap::NotAvailable { .. }), "{trap}");
    assert_eq!(trap.to_string(), "wasi:clocks/brand-new@0.2.9#number-of-moons is not available to operators");
}

/// Calls a function and gives back the first eight bytes of its answer in memory.
fn flat_answer(interface: &str, function: &str, types: &str, result: &str) -> u64 {
    let mut guest = wat(&format!(
        r#"(component
            (import "{interface}" (instance $i {types} (export "{function}" (func (result {result})))))
            (core module $memory
                (memory (export "memory") 1)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 64))
            (core instance $mem (instantiate $memory))
            (core func $f (canon lower (func $i "{function}") (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
            (core module $m
                (import "" "memory" (memory 1))
                (import "" "f" (func $f (param i32)))
                (func (export "run") (result i64)
                    (i64.store (i32.const 0) (i64.const -1))
                    (call $f (i32.const 0))
                    (i64.load (i32.const 0))))
            (core instance $c (instantiate $m (with "" (instance
                (export "memory" (memory $mem "memory")) (export "f" (func $f))))))
            (func (export "run") (result u64) (canon lift (core func $c "run"))))"#
    ));
    guest.number().expect("runs")
}

#[test]
fn a_denial_is_the_error_case_that_says_so() {
    let file = r#"(type $e (enum "io" "not-permitted" "access")) (export "error-code" (type $c (eq $e)))"#;
    // The first byte is the result's case (1: err), the second the error's.
    assert_eq!(flat_answer("wasi:filesystem/types@0.2.1", "sync", file, "(result u8 (error $c))") & 0xffff, 0x0201);
    let socket = r#"(type $e (variant (case "other" (option string)) (case "unknown") (case "access-denied")))
        (export "error-code" (type $c (eq $e)))"#;
    let answer = flat_answer("wasi:sockets/tcp@0.2.1", "listen", socket, "(result (error $c))");
    assert_eq!((answer & 0xff, (answer >> 32) & 0xff), (1, 2), "{answer:x}");
    let strange = r#"(type $e (enum "first" "second")) (export "error-code" (type $c (eq $e)))"#;
    assert_eq!(flat_answer("wasi:io/other@0.2.1", "f", strange, "(result u8 (error $c))") & 0xffff, 0x0001);
}

#[test]
fn a_denial_is_none_or_an_empty_list_where_the_type_has_them() {
    assert_eq!(flat_answer("wasi:cli/environment@0.2.0", "initial-cwd", "", "(option string)") & 0xff, 0);
    // Pointer and length.
    assert_eq!(flat_answer("wasi:cli/environment@0.2.0", "get-arguments", "", "(list string)") >> 32, 0);
    assert_eq!(flat_answer("wasi:filesystem/preopens@0.2.0", "get-directories", "", "(list (tuple u32 string))") >> 32, 0);
}

#[test]
fn a_handle_lent_to_a_denial_comes_back() {
    let mut guest = wat(r#"(component
        (import "wasi:sockets/network@0.2.3" (instance $network (export "network" (type (sub resource)))))
        (alias export $network "network" (type $n))
        (import "wasi:sockets/instance-network@0.2.3" (instance $i
            (alias outer 1 $n (type $n)) (export "network" (type $m (eq $n)))
            (export "instance-network" (func (result (own $m))))))
        (import "wasi:sockets/made-up@0.2.3" (instance $d
            (alias outer 1 $n (type $n)) (export "network" (type $m (eq $n)))
            (export "borrow" (func (param "all" (tuple (borrow $m) (option (borrow $m)))) (result (result))))
            (export "take" (func (param "n" (own $m)) (result (result))))))
        (core func $get (canon lower (func $i "instance-network")))
        (core func $borrow (canon lower (func $d "borrow")))
        (core func $take (canon lower (func $d "take")))
        (core func $drop (canon resource.drop $n))
        (core module $m
            (import "" "get" (func $get (result i32)))
            (import "" "borrow" (func $borrow (param i32 i32 i32) (result i32)))
            (import "" "take" (func $take (param i32) (result i32)))
            (import "" "drop" (func $drop (param i32)))
            (func (export "run") (result i64) (local $n i32) (local $round i32)
                (loop
                    (local.set $n (call $get))
                    (drop (call $borrow (local.get $n) (i32.const 1) (local.get $n)))
                    (call $drop (local.get $n))
                    (drop (call $take (call $get)))
                    (local.set $round (i32.add (local.get $round) (i32.const 1)))
                    (br_if 0 (i32.lt_u (local.get $round) (i32.const 5000))))
                i64.const 1))
        (core instance $c (instantiate $m (with "" (instance
            (export "get" (func $get)) (export "borrow" (func $borrow))
            (export "take" (func $take)) (export "drop" (func $drop))))))
        (func (export "run") (result u64) (canon lift (core func $c "run"))))"#);
    assert_eq!(guest.number().expect("runs"), 1);
    assert_eq!(guest.store.data_mut().wasi().handles_open(), 0);
}

#[test]
fn everything_forbidden_is_named_at_once() {
    let engine = engine();
    let text = r#"(component
        (import "tidegate:streaming/output@0.1.0" (instance))
        (import "wasi:io/poll@0.2.3" (instance (export "fine" (func))))
        (import "wasi:http/outgoing-handler@0.2.3" (instance (export "handle" (func))))
        (import "foo:bar/baz" (instance))
        (import "wasi:io/poll@0.2.0-rc-2023-11-10" (instance))
        (import "wasi:clocks/monotonic-clock@0.3.0" (instance))
        (import "wasi:random/random" (instance))
        (import "bare" (func))
        (import "core" (core module))
        (import "a-type" (type (sub resource)))
        (import "wasi:cli/nested@0.2.0" (instance (export "inner" (instance (export "f" (func))))))
    )"#;
    let component = Component::new(&engine, wat::parse_str(text).expect("WAT")).expect("component");
    let mut linker = Linker::<Log>::new(&engine);
    let error = link(&mut linker, &component, &engine).expect_err("is refused");
    let LinkError::Forbidden(forbidden) = &error else { panic!("refused by name, not: {error}") };
    let names = [
        "wasi:http/outgoing-handler@0.2.3",
        "foo:bar/baz",
        "wasi:io/poll@0.2.0-rc-2023-11-10",
        "wasi:clocks/monotonic-clock@0.3.0",
        "wasi:random/random",
        "bare",
        "core",
        "a-type",
        "wasi:cli/nested@0.2.0#inner",
    ];
    assert_eq!(forbidden.names, names);
    assert_eq!(forbidden_imports(&component, &engine), names);
    for name in names {
        assert!(error.to_string().contains(name), "{error} names {name}");
    }
}

#[test]
fn a_known_function_of_another_type_does_not_link() {
    let engine = engine();
    let text = r#"(component
        (import "wasi:clocks/monotonic-clock@0.2.3" (instance (export "now" (func (result string))))))"#;
    let component = Component::new(&engine, wat::parse_str(text).expect("WAT")).expect("component");
    let error = instantiate(&engine, &component).err().expect("is refused");
    assert!(format!("{error:#}").contains("wasi:clocks/monotonic-clock@0.2.3"), "{error:#}");
}
