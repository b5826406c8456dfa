//! What is refused at upload, and how it is named.

use tidegate::wasm::ModuleError;
use tidegate::wasm::inspect::inspect;
use tidegate_tests::guest::engine;

fn refusal(wat: &str) -> ModuleError {
    let component = wat::parse_str(wat).expect("the text is a component");
    inspect(engine(), &component, "digest").err().expect("is refused")
}

#[test]
fn forbidden_imports_are_refused_all_at_once_by_name() {
    let error = refusal(
        r#"(component
            (import "acme:cache/store@1.0.0" (instance (export "get" (func (result u32)))))
            (import "wasi:http/outgoing-handler@0.2.6" (instance (export "handle" (func))))
            (import "wasi:random/random@0.2.6" (instance (export "get-random-u64" (func (result u64)))))
            (import "print" (func)))"#,
    );
    let ModuleError::ForbiddenImports(forbidden) = &error else { panic!("{error}") };
    let mut names = forbidden.names.clone();
    names.sort_unstable();
    assert_eq!(names, ["acme:cache/store@1.0.0", "print", "wasi:http/outgoing-handler@0.2.6"]);
    for name in names {
        assert!(error.to_string().contains(&name), "{error}");
    }
}

#[test]
fn asynchronous_wasi_is_refused() {
    let error =
        refusal(r#"(component (import "wasi:clocks/monotonic-clock@0.3.0" (instance (export "now" (func (result u64))))))"#);
    assert!(error.to_string().contains("wasi:clocks/monotonic-clock@0.3.0"), "{error}");
}

#[test]
fn a_contract_of_another_version_is_no_contract() {
    let error = refusal(
        r#"(component (import "tidegate:streaming/logging@0.2.0" (instance (export "log" (func (param "message" string))))))"#,
    );
    assert!(matches!(error, ModuleError::WrongWorld(_) | ModuleError::ForbiddenImports(_)), "{error}");
}

#[test]
fn a_function_that_the_contract_does_not_have_is_refused() {
    let error =
        refusal(r#"(component (import "tidegate:streaming/timers@0.1.0" (instance (export "sleep" (func (param "ms" u64))))))"#);
    assert!(matches!(error, ModuleError::WrongWorld(_)), "{error}");
}

#[test]
fn a_component_without_the_exports_of_a_world_is_refused() {
    let error = refusal("(component)");
    assert!(error.to_string().contains("does not serve a world"), "{error}");
}
