//! What is refused at upload, whatever its bytes.

use crate::component::{Component, DESCRIPTOR, SCRATCH, SPIN, words};
use tidegate_tests::generator::mix;
use tidegate_tests::host::Host;

type Case = (&'static str, Vec<u8>, &'static str);

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Whose `describe` runs this body.
fn describe(body: impl Into<String>) -> Vec<u8> {
    Component { describe: body.into(), ..Component::default() }.bytes()
}

/// Whose descriptor is changed in these words before it is answered.
fn descriptor(changes: &[(u32, u32)]) -> Vec<u8> {
    let changes: Vec<_> = changes.iter().map(|(offset, word)| (DESCRIPTOR + offset, *word)).collect();
    describe(format!("{} (i32.const {DESCRIPTOR})", words(&changes)))
}

const NAME: u32 = 0;
const INPUTS: u32 = 16;
const OUTPUTS: u32 = 24;

fn operator_with(items: &str) -> Vec<u8> {
    Component { items: items.to_owned(), ..Component::default() }.bytes()
}

fn not_components() -> Vec<Case> {
    let whole = Component::default().bytes();
    let noise: Vec<u8> = (1..4096).map(|i| mix(i) as u8).collect();
    let preamble = b"\0asm\x0d\0\x01\0".to_vec();
    vec![
        ("empty", Vec::new(), "this is not WebAssembly"),
        ("random bytes", noise.clone(), "this is not WebAssembly"),
        ("a preamble and random bytes", [preamble, noise].concat(), "the component does not compile"),
        ("a core module", wat("(module)"), "this is a core module, not a component"),
        ("cut off", whole[..whole.len() / 2].to_vec(), "the component does not compile"),
        ("cut off by one byte", whole[..whole.len() - 1].to_vec(), "the component does not compile"),
        ("memory of 64 bits", wat("(component (core module (memory i64 1)))"), "the component does not compile"),
        ("types in types in types", nested_types(), "the component does not compile"),
    ]
}

fn nested_types() -> Vec<u8> {
    let types: String = (1..2000).map(|i| format!("(type $t{i} (list $t{}))", i - 1)).collect();
    wat(&format!("(component (type $t0 (list u8)) {types})"))
}

fn imports() -> Vec<Case> {
    let import = |name: &str| format!("(import \"{name}\" (instance (export \"open\" (func))))");
    let many: String = (0..1000).map(|i| import(&format!("acme:power/p{i}@1.0.0"))).collect();
    vec![
        ("a foreign import", wat(&format!("(component {})", import("acme:power/disk@1.0.0"))), "acme:power/disk@1.0.0"),
        ("http", wat(&format!("(component {})", import("wasi:http/outgoing-handler@0.2.6"))), "wasi:http/outgoing-handler@0.2.6"),
        (
            "sockets of another version",
            wat(&format!("(component {})", import("wasi:sockets/types@0.3.0"))),
            "wasi:sockets/types@0.3.0",
        ),
        ("a core module from outside", wat("(component (import \"m\" (core module)))"), "what operators can't have: m"),
        ("a thousand imports", wat(&format!("(component {many})")), "and 980 more"),
        (
            "names without end",
            wat(&format!(
                "(component {})",
                (0..900).map(|i| import(&format!("wasi:io/p{i}-{}@0.2.0", "x".repeat(90)))).collect::<String>()
            )),
            "the limit is 65536 (imports_bytes_max)",
        ),
        ("no world", wat("(component)"), "does not serve a world of tidegate:streaming@0.1.0"),
    ]
}

fn descriptions() -> Vec<Case> {
    let recursion = "(func $deeper (param i32) (result i32) (i32.add (call $deeper (local.get 0)) (i32.const 1)))";
    let deep =
        Component { items: recursion.to_owned(), describe: "(call $deeper (i32.const 1))".to_owned(), ..Component::default() };
    // A thousand names of 50,000 bytes each, all in the same bytes.
    let overlapping = format!(
        "(local $i i32)
         (loop $next
            (i32.store (i32.add (i32.const 65536) (i32.mul (local.get $i) (i32.const 8))) (i32.const 73728))
            (i32.store offset=4 (i32.add (i32.const 65536) (i32.mul (local.get $i) (i32.const 8))) (i32.const 50000))
            (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000))))
         {} (i32.const {DESCRIPTOR})",
        words(&[(DESCRIPTOR + OUTPUTS, 65536), (DESCRIPTOR + OUTPUTS + 4, 1000)])
    );
    vec![
        ("describe spins", describe(SPIN), "`describe` failed: the call ran longer than 1000 ms (limits.deadline)"),
        ("describe traps", describe("unreachable"), "wasm `unreachable` instruction executed"),
        ("describe recurses", deep.bytes(), "call stack exhausted"),
        (
            "describe allocates",
            describe("(loop $more (drop (memory.grow (i32.const 64))) (br $more)) unreachable"),
            "exceeds the limit of 268435456 (limits.memory)",
        ),
        ("describe answers outside its memory", describe("(i32.const -16)"), "`describe` failed"),
        ("describe answers at an odd address", describe(format!("(i32.const {})", DESCRIPTOR + 1)), "`describe` failed"),
        ("a name outside the memory", descriptor(&[(NAME, u32::MAX)]), "`describe` failed"),
        (
            "a name that is no text",
            descriptor(&[(NAME, DESCRIPTOR + OUTPUTS), (NAME + 4, 2), (OUTPUTS, 0xffff_ffff)]),
            "`describe` failed",
        ),
        (
            "a name of 1000 bytes",
            descriptor(&[(NAME, SCRATCH), (NAME + 4, 1000)]),
            "name = 1000: the limit is 128 (name_bytes_max)",
        ),
        ("four billion outputs", descriptor(&[(OUTPUTS + 4, u32::MAX)]), "`describe` failed"),
        (
            "a hundred outputs",
            descriptor(&[(OUTPUTS, SCRATCH), (OUTPUTS + 4, 100)]),
            "outputs = 100: the limit is 64 (declarations_max)",
        ),
        (
            "outputs that overlap",
            describe(overlapping),
            "`describe` failed: the guest handed more than 1048576 bytes to the host at once (descriptor_bytes_max)",
        ),
        ("no input", descriptor(&[(INPUTS, 0)]), "an operator has at least one input"),
        (
            "a start function that traps",
            operator_with("(func $s unreachable) (start $s)"),
            "wasm `unreachable` instruction executed",
        ),
        ("a start function that spins", operator_with(&format!("(func $s {SPIN}) (start $s)")), "(limits.deadline)"),
    ]
}

fn declarations() -> Vec<Case> {
    let times = |n: usize, item: &str| item.repeat(n);
    let instances = times(300, "(core instance (instantiate $empty))");
    let many = Component { head: format!("(core module $empty) {instances}"), ..Component::default() };
    let grows = "(table $t 1 funcref)
        (func $s (loop $more (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 4096)) (i32.const -1))))) (start $s)";
    vec![
        (
            "much memory to begin with",
            Component { memory: "8192", ..Component::default() }.bytes(),
            "536870912 bytes of memory to begin with, the limit is 268435456 (describe_memory_bytes_max)",
        ),
        ("many memories", operator_with(&times(20, "(memory 1)")), "21 memories, the limit is 16 (memories_max)"),
        ("many tables", operator_with(&times(70, "(table 1 funcref)")), "70 tables, the limit is 64 (tables_max)"),
        (
            "a great table",
            operator_with("(table 2000000 funcref)"),
            "2000000 elements of one table, the limit is 1048576 (table_elements_max)",
        ),
        ("two tables that are great together", operator_with(&times(2, "(table 1000000 funcref)")), "(table_elements_max)"),
        ("a table that grows", operator_with(grows), "(table_elements_max)"),
        ("many instances", many.bytes(), "(core_instances_max)"),
    ]
}

#[test]
fn each_is_refused_with_the_reason_by_name_and_the_host_stays_up() {
    let mut host = Host::start();
    let pid = host.pid();
    let cases = [not_components(), imports(), descriptions(), declarations()].concat();
    assert!(cases.len() > 30, "{}", cases.len());
    let mut wrong = Vec::new();
    for (i, (case, bytes, named)) in cases.iter().enumerate() {
        let answer = host.client().put(&format!("/v1/modules/evil-{i}/1.0.0"), "application/wasm", bytes);
        let detail = answer.problem(422)["detail"].as_str().unwrap_or_default().to_owned();
        let all = format!("{detail}\n{}", answer.body.replace("\\\"", "\""));
        if !all.contains(named) && !shown(&answer.body).iter().any(|problem| problem.contains(named)) {
            wrong.push(format!("{case}: {detail}"));
        }
        assert!(answer.body.len() < 64 << 10, "{case}: a refusal of {} bytes", answer.body.len());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(!host.has_ended() && host.pid() == pid);
    let modules = host.client().get("/v1/modules").document();
    assert_eq!(modules["modules"].as_array().map(Vec::len), Some(0), "nothing of it is stored: {modules}");
    host.push("record-upper");
}

/// Problems of the document, as a person reads them.
fn shown(body: &str) -> Vec<String> {
    let document: serde_json::Value = serde_json::from_str(body).expect("a problem document");
    let problems = document["problems"].as_array().cloned().unwrap_or_default();
    let text = |problem: &serde_json::Value, key: &str| problem[key].as_str().unwrap_or_default().to_owned();
    problems.iter().map(|it| format!("{} = {}: {}", text(it, "key"), text(it, "value"), text(it, "message"))).collect()
}

#[test]
fn a_component_that_behaves_is_taken() {
    let host = Host::start();
    let answer = host.client().put("/v1/modules/good/1.0.0", "application/wasm", &Component::default().bytes()).document();
    assert_eq!((&answer["operator"]["name"], &answer["world"]), (&"evil".into(), &"processor".into()), "{answer}");
}
