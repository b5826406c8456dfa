//! Components written by hand, down to the bytes that they hand over: what no compiler would make of any language.
//!
//! Each serves the world `processor`. A part that is not said otherwise behaves: `describe` names an operator with one input, no output
//! and no state; `start` and every call answer ok.

/// The text of a component, of which some parts misbehave. Function bodies are WebAssembly text; their results are addresses.
pub struct Component {
    /// Pages of memory, as a memory's type has them.
    pub memory: &'static str,
    /// `() -> descriptor`
    pub describe: String,
    /// `() -> result<_, failure>`
    pub start: String,
    /// `() -> result<list<rejected-row>, failure>`
    pub process: String,
    /// `(old, old size, alignment, new size) -> address`. May call itself as `$realloc`.
    pub realloc: &'static str,
    /// More of the core module.
    pub items: String,
    /// More of the component, in front of everything else.
    pub head: String,
}

/// Where the descriptor lies, and an ok with an empty list.
pub const DESCRIPTOR: u32 = 1024;
pub const OK: u32 = 2048;
/// Free for the parts that misbehave: 1 KiB that is zero.
pub const SCRATCH: u32 = 4096;

impl Default for Component {
    fn default() -> Self {
        Self {
            memory: "2",
            describe: format!("(i32.const {DESCRIPTOR})"),
            start: format!("(i32.const {OK})"),
            process: format!("(i32.const {OK})"),
            realloc: "(local $at i32)
                (global.set $top (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
                (local.set $at (global.get $top))
                (global.set $top (i32.add (global.get $top) (local.get 3)))
                (loop $more
                    (if (i32.gt_u (global.get $top) (i32.mul (memory.size) (i32.const 65536)))
                        (then (drop (memory.grow (i32.const 16))) (br $more))))
                (local.get $at)",
            items: String::new(),
            head: String::new(),
        }
    }
}

impl Component {
    pub fn bytes(&self) -> Vec<u8> {
        let text = self.text();
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    fn text(&self) -> String {
        let Self { memory, describe, start, process, realloc, items, head } = self;
        format!(
            r#"(component
  {head}
  (import "tidegate:streaming/output@0.1.0" (instance $output
    (export "emit" (func (param "port" u32) (param "count" u32) (param "rows" (list u8))))))
  (import "tidegate:streaming/logging@0.1.0" (instance $logging
    (type $l (enum "trace" "debug" "info" "warn" "error")) (export "level" (type $level (eq $l)))
    (type $f (record (field "name" string) (field "value" string))) (export "field" (type $field (eq $f)))
    (export "log" (func (param "level" $level) (param "message" string) (param "fields" (list $field))))))
  ;; Memory has a module of its own, because imports that take lists need it before there is an operator.
  (core module $ground
    (memory (export "memory") {memory})
    (global $top (mut i32) (i32.const 65536))
    (func $realloc (export "realloc") (param i32 i32 i32 i32) (result i32) {realloc}))
  (core instance $ground (instantiate $ground))
  (alias core export $ground "memory" (core memory $memory))
  (alias core export $ground "realloc" (core func $realloc))
  (core func $emit (canon lower (func $output "emit") (memory $memory) (realloc $realloc)))
  (core func $log (canon lower (func $logging "log") (memory $memory) (realloc $realloc)))
  (core instance $host (export "emit" (func $emit)) (export "log" (func $log)))
  (core module $operator
    (import "ground" "memory" (memory 1))
    (import "host" "emit" (func $emit (param i32 i32 i32 i32)))
    (import "host" "log" (func $log (param i32 i32 i32 i32 i32)))
    (func (export "describe") (result i32) {describe})
    (func (export "start") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) {start})
    (func (export "process") (param i32 i32 i32 i32 i32 i32 i32 i64 i64) (result i32) {process})
    (func (export "timers") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i64) (result i32) (i32.const {OK}))
    ;; name and version: 4 bytes at 3072; inputs: 1; not keyed; no outputs, no states
    (data (i32.const {DESCRIPTOR}) "\00\0c\00\00\04\00\00\00\00\0c\00\00\04\00\00\00\01\00\00\00")
    (data (i32.const 3072) "evil")
    {items})
  (core instance $i (instantiate $operator (with "ground" (instance $ground)) (with "host" (instance $host))))
  (type $domain (enum "event-time" "processing-time"))
  (type $reducer (enum "sum-s64" "sum-f64" "min-s64" "max-s64" "min-f64" "max-f64" "count"))
  (type $kind (variant (case "value-state") (case "map-state") (case "list-state") (case "reducing-state" $reducer)))
  (type $ttl (record (field "ms" u64) (field "domain" $domain)))
  (type $state (record (field "name" string) (field "kind" $kind) (field "value-type" string) (field "map-key-type" (option string))
    (field "schema-version" u32) (field "value-size" (option u32)) (field "ttl" (option $ttl))))
  (type $descriptor (record (field "name" string) (field "version" string) (field "inputs" u32) (field "keyed" bool)
    (field "outputs" (list string)) (field "states" (list $state))))
  (type $option (record (field "name" string) (field "value" string)))
  (type $context (record (field "job" string) (field "operator-name" string) (field "task-index" u32) (field "parallelism" u32)
    (field "options" (list $option))))
  (type $rejected (record (field "row" u32) (field "reason" string)))
  (type $failure (variant (case "bad-row" $rejected) (case "fatal" string) (case "transient" string)))
  (type $batch (record (field "input" u32) (field "count" u32) (field "rows" (list u8)) (field "slots" (list u32))
    (field "key-count" u32) (field "watermark" s64) (field "processing-time" s64)))
  (type $column (record (field "data" (list u8)) (field "offsets" (list u32))))
  (type $due (record (field "domain" $domain) (field "slots" (list u32)) (field "times" (list s64)) (field "tags" (list u64))
    (field "keys" $column) (field "watermark" s64) (field "processing-time" s64)))
  (func $describe (result $descriptor) (canon lift (core func $i "describe") (memory $memory) (realloc $realloc)))
  (func $start (param "context" $context) (result (result (error $failure)))
    (canon lift (core func $i "start") (memory $memory) (realloc $realloc)))
  (func $process (param "input" $batch) (result (result (list $rejected) (error $failure)))
    (canon lift (core func $i "process") (memory $memory) (realloc $realloc)))
  (func $timers (param "timers" $due) (result (result (list $rejected) (error $failure)))
    (canon lift (core func $i "timers") (memory $memory) (realloc $realloc)))
  (instance $lifecycle
    (export "reducer" (type $reducer)) (export "time-domain" (type $domain)) (export "state-kind" (type $kind))
    (export "time-to-live" (type $ttl)) (export "state-declaration" (type $state)) (export "descriptor" (type $descriptor))
    (export "option-entry" (type $option)) (export "task-context" (type $context)) (export "rejected-row" (type $rejected))
    (export "failure" (type $failure)) (export "describe" (func $describe)) (export "start" (func $start)))
  (export "tidegate:streaming/lifecycle@0.1.0" (instance $lifecycle))
  (instance $processing
    (export "time-domain" (type $domain)) (export "rejected-row" (type $rejected)) (export "failure" (type $failure))
    (export "batch" (type $batch)) (export "bytes-column" (type $column)) (export "due-timers" (type $due))
    (export "process-batch" (func $process)) (export "on-timers" (func $timers)))
  (export "tidegate:streaming/batch-processing@0.1.0" (instance $processing)))"#
        )
    }
}

/// Loops for ever.
pub const SPIN: &str = "(loop $for-ever (br $for-ever)) (unreachable)";

/// Writes words to memory: (address, value).
pub fn words(words: &[(u32, u32)]) -> String {
    words.iter().map(|(at, word)| format!("(i32.store (i32.const {at}) (i32.const {}))", *word as i32)).collect()
}
