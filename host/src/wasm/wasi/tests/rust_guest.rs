//! A guest on the standard library, which believes it has a machine of its own.

use super::*;
use std::sync::OnceLock;

fn probe() -> Guest {
    static COMPONENT: OnceLock<(Engine, Component)> = OnceLock::new();
    let (engine, component) = COMPONENT.get_or_init(|| {
        let engine = engine();
        let component = Component::from_file(&engine, guest_build::component("wasi-probe")).expect("component");
        (engine, component)
    });
    let mut guest = instantiate(engine, component).expect("links");
    guest.store.data_mut().wasi().begin_call(CALL_MS, seed("job", "probe", 0, 1));
    guest
}

impl Guest {
    fn tries(&mut self, what: &str) -> wasmtime::Result<Vec<String>> {
        let Val::List(lines) = self.call(&[Val::String(what.to_string())])? else { panic!("a list") };
        let text = |line| if let Val::String(line) = line { line } else { panic!("a string") };
        Ok(lines.into_iter().map(text).collect())
    }

    fn lines(&self, stream: Stream) -> Vec<&str> {
        let of_stream = self.store.data().lines.iter().filter(|(of, _)| *of == stream);
        of_stream.map(|(_, line)| line.as_str()).collect()
    }
}

#[test]
fn prints_reach_the_log_line_by_line() {
    let mut guest = probe();
    guest.tries("print").expect("runs");
    assert_eq!(guest.lines(Stream::Stderr), ["an error", "in pieces"]);
    let [first, long] = guest.lines(Stream::Stdout)[..] else { panic!("{:?}", guest.store.data().lines) };
    assert_eq!(first, "to the log");
    assert!(long.starts_with("long long"));
    assert!(long.ends_with("[11808 bytes cut: log_line_bytes_max is 8192]"), "{}", &long[8000..]);
}

#[test]
fn a_line_without_an_end_is_logged_when_the_call_ends() {
    let mut guest = probe();
    guest.tries("print-without-end").expect("runs");
    assert_eq!(guest.lines(Stream::Stdout), ["no end"]);
}

#[test]
fn a_flood_is_cut_and_says_so_once() {
    let mut guest = probe();
    guest.tries("flood").expect("runs");
    let lines = guest.lines(Stream::Stdout);
    let bytes: usize = lines.iter().map(|line| line.len()).sum();
    assert!(bytes <= WASI_OUTPUT_BYTES_PER_CALL_MAX + 200, "{bytes} bytes");
    assert_eq!(lines.iter().filter(|line| line.contains("output_bytes_per_call_max is 1048576")).count(), 1);

    guest.store.data_mut().lines.clear();
    guest.store.data_mut().wasi().begin_call(CALL_MS, 2);
    guest.tries("print").expect("runs");
    assert_eq!(guest.lines(Stream::Stdout).len(), 2, "the next call may print again");
}

#[test]
fn time_is_the_time_of_the_call() {
    let mut guest = probe();
    let told = guest.tries("time").expect("runs");
    assert_eq!(told, [format!("{CALL_MS}000000"), "1".to_string()]);
    guest.store.data_mut().wasi().begin_call(CALL_MS + 77, 3);
    assert_eq!(guest.tries("time").expect("runs")[0], format!("{}000000", CALL_MS + 77));
}

#[test]
fn a_sleep_moves_the_clocks_and_takes_no_time() {
    let mut guest = probe();
    let start = std::time::Instant::now();
    assert_eq!(guest.tries("sleep").expect("runs"), ["3600", "3600"]);
    assert!(start.elapsed().as_secs() < 60);
    // The next call starts at its own time.
    guest.store.data_mut().wasi().begin_call(CALL_MS, 4);
    assert_eq!(guest.tries("time").expect("runs")[0], format!("{CALL_MS}000000"));
}

#[test]
fn hash_maps_are_ordered_by_the_seed_of_the_call() {
    let order = |seed| {
        let mut guest = probe();
        guest.store.data_mut().wasi().begin_call(CALL_MS, seed);
        guest.tries("hashmap").expect("runs")
    };
    let first = order(1);
    assert_eq!(first.len(), 100);
    assert_eq!(first, order(1), "a replay sees the same order");
    assert_ne!(first, order(2));
}

#[test]
fn there_are_no_files() {
    let told = probe().tries("files").expect("an error, not a trap");
    assert!(told.iter().all(|result| result != "ok"), "{told:?}");
}

#[test]
fn there_is_no_network() {
    let mut guest = probe();
    let told = guest.tries("network").expect("an error, not a trap");
    assert!(told.iter().all(|result| result != "ok"), "{told:?}");
    assert_eq!(told[0], "PermissionDenied", "{told:?}");
    assert!(guest.store.data_mut().wasi().handles_open() < 10, "{}", guest.store.data_mut().wasi().handles_open());
}

#[test]
fn the_environment_is_empty_and_stdin_is_at_its_end() {
    let mut guest = probe();
    assert_eq!(guest.tries("environment").expect("runs"), ["[]", "[]", "Err(NotPresent)"]);
    assert_eq!(guest.tries("stdin").expect("runs"), ["Ok(0) \"\""]);
}

#[test]
fn exit_traps_and_names_the_status() {
    let error = probe().tries("exit").expect_err("traps");
    let trap = error.downcast_ref::<WasiTrap>().expect("our trap").to_string();
    assert!(trap.contains("the operator ended itself with status"), "{trap}");
    assert!(trap.contains("wasi:cli/exit@0.2."), "{trap}");
}

#[test]
fn a_panic_leaves_its_message_in_the_log() {
    let mut guest = probe();
    guest.tries("panic").expect_err("traps");
    assert!(guest.lines(Stream::Stderr).iter().any(|line| line.contains("as asked")), "{:?}", guest.store.data().lines);
}
