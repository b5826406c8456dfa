//! Components that are small to send and hard to compile.

use crate::component::Component;
use std::fmt::Write;
use std::time::Duration;
use tidegate::wasm::ModuleError;
use tidegate::wasm::worker::CompileWorkers;
use tidegate_core::limits::CompileLimits;
use tidegate_tests::host::{Host, binary};

/// Functions of so many statements over so many locals: every statement needs values that others have just made.
fn bomb(functions: usize, statements: usize, locals: usize) -> Vec<u8> {
    let mut body = String::new();
    for i in 0..statements {
        let (to, a, b) = (i % locals, (i * 7 + 1) % locals, (i * 13 + 5) % locals);
        let _ = write!(body, "(local.set {to} (i64.mul (local.get {a}) (i64.add (local.get {b}) (i64.const {i}))))");
        if i % 3 == 0 {
            let _ = write!(body, "(if (i64.eqz (local.get {to})) (then (local.set {} (i64.const 1))))", (i + 3) % locals);
        }
    }
    let function = format!("(func (result i64) (local {}) {body} (local.get 0))", "i64 ".repeat(locals));
    wat::parse_str(format!("(component (core module {}))", function.repeat(functions))).expect("the text is a component")
}

fn refusal(component: &[u8], limits: CompileLimits) -> ModuleError {
    CompileWorkers::of(binary().to_owned(), limits).inspect(component, "digest").err().expect("is refused")
}

#[test]
fn what_takes_the_compiler_too_long_is_given_up() {
    let limits = CompileLimits { seconds_max: 1, ..CompileLimits::default() };
    let refused = refusal(&bomb(1, 60_000, 2000), limits);
    assert_eq!(refused.to_string(), "the compiler needed more than 1 s for the component (compile_seconds_max)");
    let refused = refusal(&bomb(1000, 300, 50), limits);
    assert_eq!(refused, ModuleError::CompileTooLong { seconds: 1 }, "many functions are no better than a great one");
}

#[test]
fn what_takes_the_compiler_too_much_memory_is_given_up() {
    let limits = CompileLimits { memory_bytes_max: 192 << 20, ..CompileLimits::default() };
    let refused = refusal(&bomb(1, 60_000, 2000), limits);
    let expected = "the compiler needed more than 201326592 bytes of memory for the component (compile_memory_bytes_max)";
    assert_eq!(refused.to_string(), expected);
    // The same bound is enough for a component that behaves.
    CompileWorkers::of(binary().to_owned(), limits).inspect(&Component::default().bytes(), "digest").expect("is taken");
}

#[test]
fn the_host_answers_others_while_a_bomb_is_compiled_and_refuses_it_by_name() {
    let mut host = Host::prepared();
    host.set_env("TIDEGATE_COMPILE_SECONDS", "4");
    host.restart();
    let component = bomb(1, 60_000, 2000);
    std::thread::scope(|scope| {
        let upload = scope.spawn(|| host.client().put("/v1/modules/bomb/1.0.0", "application/wasm", &component));
        while !upload.is_finished() {
            assert_eq!(host.client().get("/readyz").status, 200);
            // As a monitor asks, not as fast as it goes: that meets the limit of requests.
            std::thread::sleep(Duration::from_millis(20));
        }
        let problem = upload.join().expect("an answer").problem(422);
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("the compiler needed more than 4 s for the component (compile_seconds_max)"), "{problem}");
        assert!(problem["remedy"].as_str().unwrap_or_default().contains("--compile-seconds"), "{problem}");
    });
    host.push("record-upper");
    assert!(!host.has_ended());
}
