//! The API, described for programs: OpenAPI 3.1 at `/v1/openapi.json`.
//!
//! Shapes are derived from the types that handlers read and write. What stands here by hand is what types do not say: which route answers
//! what. A test compares it with the router, and Schemathesis with what the server does (`make schemathesis`).
//!
//! Invariant: every route of the router is described, and nothing else.

use super::events::{EventParameters, LogParameters};
use super::jobs::{DeadLetterParameters, DeleteParameters, PutParameters};
use super::operations::WaitParameter;
use crate::api::{
    API_VERSION, CheckpointList, DeadLetter, DeadLetterPage, EventView, JobGraph, JobList, JobView, JobWhy, LogPage, ModuleList,
    ModuleView, OperationList, OperationView, PROBLEM_JSON, ProblemDetails, ReplayRequest, ReplayView, SavepointList,
    SavepointRequest, StartRequest, StopRequest, VersionView,
};
use crate::metrics::text;
use axum::http::header;
use axum::response::IntoResponse;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;
use tidegate_core::limits::{HttpLimits, JOB_FILE_BYTES_MAX, MODULE_BYTES_MAX, NAME_BYTES_MAX, REQUEST_BODY_BYTES_MAX};

pub async fn openapi() -> impl IntoResponse {
    static TEXT: LazyLock<String> = LazyLock::new(|| document().to_string());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}

/// The whole description.
pub fn document() -> Value {
    let mut api = Api::new();
    modules(&mut api);
    jobs(&mut api);
    savepoints_and_operations(&mut api);
    watching(&mut api);
    host(&mut api);
    api.finish()
}

fn modules(api: &mut Api) {
    const MODULE: &str = "/v1/modules/{name}/{version}";
    api.get("/v1/modules", "All modules").answers::<ModuleList>(200, "By name and version").add();
    let component = json!({ "schema": { "type": "string", "format": "binary" } });
    api.op("put", MODULE, "Push a component. The same bytes again change nothing")
        .content(json!({ "application/wasm": component, "application/octet-stream": component }), true)
        .answers::<ModuleView>(201, "A new version")
        .answers::<ModuleView>(200, "It is there already, with these bytes")
        .problems(&[408, 409, 413, 422])
        .add();
    api.get(MODULE, "What is known of a component")
        .answers::<ModuleView>(200, "Digest, world, imports, states")
        .problems(&[404])
        .add();
    api.op("delete", MODULE, "Delete a version that no job names").empty(204, "It is gone").problems(&[404, 409]).add();
}

fn jobs(api: &mut Api) {
    const JOB: &str = "/v1/jobs/{name}";
    api.get("/v1/jobs", "All jobs").answers::<JobList>(200, "By name, without their specs").add();
    let job = json!({
        "type": "object",
        "description": "A job file; docs/job-file.md has its keys. All problems are told at once, with 422.",
        "properties": { "name": { "type": "string", "description": "As in the path, or absent" } },
    });
    let toml = json!({ "schema": { "type": "string", "description": "The same as TOML" } });
    api.op("put", JOB, "Create a job, or replace one that does not run")
        .query::<PutParameters>()
        .content(json!({ "application/json": { "schema": job }, "application/toml": toml }), true)
        .answers::<JobView>(201, "A new job")
        .answers::<JobView>(200, "Replaced, or as it was")
        .problems(&[408, 409, 413, 415, 422])
        .add();
    api.get(JOB, "How a job is doing")
        .answers::<JobView>(200, "Status, tasks, how the last run ended, the job file")
        .problems(&[404])
        .add();
    api.op("delete", JOB, "Delete a job with its checkpoints and dead letters")
        .query::<DeleteParameters>()
        .empty(204, "It is gone")
        .problems(&[404, 409, 504])
        .add();
    api.op("post", "/v1/jobs/{name}/start", "Start a job")
        .body::<StartRequest>()
        .answers::<JobView>(200, "It starts")
        .problems(&[404, 408, 409, 413, 415, 422])
        .add();
    api.op("post", "/v1/jobs/{name}/stop", "End a job's run, with a savepoint or without")
        .query::<WaitParameter>()
        .body::<StopRequest>()
        .operation()
        .problems(&[404, 408, 409, 413, 415, 422, 504])
        .add();
    api.get("/v1/jobs/{name}/graph", "Nodes, edges and how they are chained")
        .answers::<JobGraph>(200, "The graph")
        .problems(&[404])
        .add();
}

fn savepoints_and_operations(api: &mut Api) {
    const SAVEPOINTS: &str = "/v1/jobs/{name}/savepoints";
    api.get(SAVEPOINTS, "A job's savepoints").answers::<SavepointList>(200, "Oldest first").problems(&[404]).add();
    api.op("post", SAVEPOINTS, "Take a savepoint")
        .query::<WaitParameter>()
        .body::<SavepointRequest>()
        .operation()
        .problems(&[404, 408, 409, 413, 415, 422, 504])
        .add();
    api.op("delete", "/v1/jobs/{name}/savepoints/{id}", "Delete a savepoint")
        .empty(204, "It is gone")
        .problems(&[404, 409])
        .add();
    api.get("/v1/jobs/{name}/operations", "What takes its time")
        .answers::<OperationList>(200, "Newest last")
        .problems(&[404])
        .add();
    api.get("/v1/jobs/{name}/operations/{id}", "What became of an operation")
        .query::<WaitParameter>()
        .answers::<OperationView>(200, "Whatever became of it")
        .problems(&[404])
        .add();
}

fn watching(api: &mut Api) {
    api.get("/v1/jobs/{name}/why", "What a job waits for, and since when")
        .answers::<JobWhy>(200, "One sentence, and the facts it is drawn from")
        .problems(&[404])
        .add();
    api.get("/v1/jobs/{name}/checkpoints", "Checkpoints of this run")
        .answers::<CheckpointList>(200, "Newest last; those under way are `pending`")
        .problems(&[404])
        .add();
    api.get("/v1/jobs/{name}/dead-letters", "Records that could not be processed")
        .query::<DeadLetterParameters>()
        .answers::<DeadLetterPage>(200, "Newest first")
        .problems(&[404])
        .add();
    const LETTER: &str = "/v1/jobs/{name}/dead-letters/{id}";
    api.get(LETTER, "One dead letter, and what became of it")
        .answers::<DeadLetter>(200, "With all its fields")
        .problems(&[404])
        .add();
    let bytes = json!({ "application/octet-stream": { "schema": { "type": "string", "format": "binary" } } });
    api.get("/v1/jobs/{name}/dead-letters/{id}/value", "The record's value, byte by byte")
        .answer(200, "The bytes", bytes)
        .problems(&[404])
        .add();
    api.op("post", "/v1/jobs/{name}/dead-letters/replay", "Send dead letters back into the job")
        .body::<ReplayRequest>()
        .answers::<ReplayView>(202, "Written down: they go in with the next records")
        .answers::<ReplayView>(200, "There was nothing to do, or it was only asked what there is")
        .problems(&[404, 408, 409, 413, 415, 422])
        .add();
    api.op("post", "/v1/jobs/{name}/dead-letters/discard", "Be done with dead letters")
        .body::<ReplayRequest>()
        .answers::<ReplayView>(200, "They are discarded")
        .problems(&[404, 408, 409, 413, 415, 422])
        .add();
    let event = api.answers.subschema_for::<EventView>();
    let stream = json!({ "text/event-stream": {
        "schema": { "type": "string", "description": "Server-sent events; `data` of each is an EventView" },
        // OpenAPI 3.2 has a key for this; under 3.1 it is an extension.
        "x-item-schema": event,
    } });
    api.get("/v1/jobs/{name}/events", "What happens to a job, as it happens")
        .query::<EventParameters>()
        .header("Last-Event-ID", "Go on after the event with this id")
        .answer(200, "A stream that ends with the job or the host", stream)
        .problems(&[404])
        .add();
    api.get("/v1/jobs/{name}/logs", "What the job's operators said")
        .query::<LogParameters>()
        .answers::<LogPage>(200, "Oldest first")
        .problems(&[404])
        .add();
}

fn host(api: &mut Api) {
    let text_of = |kind: &str| json!({ kind: { "schema": { "type": "string" } } });
    api.get("/v1/version", "Versions of the host, the API and the engine").answers::<VersionView>(200, "The versions").add();
    api.get("/v1/openapi.json", "This description")
        .answer(200, "OpenAPI 3.1", json!({ "application/json": { "schema": { "type": "object" } } }))
        .add();
    api.get("/metrics", "Metrics for Prometheus").answer(200, "The text format", text_of(text::CONTENT_TYPE)).add();
    api.get("/healthz", "The process answers").answer(200, "It does", text_of("text/plain; charset=utf-8")).open().add();
    api.get("/readyz", "All jobs that are to run are started")
        .answer(200, "They are", text_of("text/plain; charset=utf-8"))
        .open()
        .add();
}

// ---- how it is put together -------------------------------------------------------------------------------------------------------

struct Api {
    paths: Map<String, Value>,
    /// Answers have keys that are always there where requests may leave them out.
    answers: SchemaGenerator,
    requests: SchemaGenerator,
}

struct Op<'a> {
    api: &'a mut Api,
    method: &'static str,
    path: &'static str,
    parameters: Vec<Value>,
    value: Map<String, Value>,
    responses: Map<String, Value>,
}

/// What any route may answer: the request is refused before it gets there, or the host has trouble.
const ANY_ROUTE: [u16; 7] = [401, 403, 414, 429, 431, 500, 503];
const SECURED: &str = "bearer";

impl Api {
    fn new() -> Self {
        let settings = || SchemaSettings::draft2020_12().with(|it| it.definitions_path = "/components/schemas".into());
        let mut answers = settings().for_serialize().into_generator();
        answers.subschema_for::<ProblemDetails>();
        Self { paths: Map::new(), answers, requests: settings().into_generator() }
    }

    fn get(&mut self, path: &'static str, summary: &str) -> Op<'_> {
        self.op("get", path, summary)
    }

    fn op(&mut self, method: &'static str, path: &'static str, summary: &str) -> Op<'_> {
        let parameters =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).map(path_parameter).collect();
        let value = json!({ "summary": summary, "operationId": operation_id(method, path) });
        let Value::Object(value) = value else { unreachable!("BUG: an object is none") };
        let op = Op { api: self, method, path, parameters, value, responses: Map::new() };
        op.problems(&ANY_ROUTE)
    }

    fn finish(mut self) -> Value {
        let mut schemas = self.answers.take_definitions(true);
        for (name, schema) in self.requests.take_definitions(true) {
            let known = schemas.insert(name.clone(), schema.clone());
            assert!(known.is_none_or(|known| known == schema), "BUG: {name} has one shape in requests and another in answers");
        }
        let limits = HttpLimits::default();
        let description = format!(
            "Requests refuse keys they do not know; answers may gain keys. Times are milliseconds since 1970 and end in `_ms`. Everything \
             that is not a success is `{PROBLEM_JSON}` (RFC 9457). Bodies have at most {REQUEST_BODY_BYTES_MAX} bytes, job files \
             {JOB_FILE_BYTES_MAX}, components {MODULE_BYTES_MAX}; headers {} together. A client may send {} requests a second unless the \
             server is told otherwise (429 with `Retry-After`).",
            limits.header_bytes_max, limits.requests_per_second_max
        );
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Tidegate",
                "version": env!("CARGO_PKG_VERSION"),
                "summary": format!("HTTP API {API_VERSION}"),
                "description": description,
                "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            },
            "servers": [{ "url": "/" }],
            // A server without tokens asks for none.
            "security": [{}, { SECURED: [] }],
            "paths": self.paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": { SECURED: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Tokens have the role `read` (GET and HEAD) or `write` (everything).",
                } },
            },
        })
    }
}

impl Op<'_> {
    /// The keys of the type, each a parameter of the query.
    fn query<T: JsonSchema>(mut self) -> Self {
        let schema = self.api.requests.root_schema_for::<T>().to_value();
        let required = schema["required"].clone();
        for (name, schema) in schema["properties"].as_object().expect("BUG: parameters are an object") {
            let mut schema = schema.clone();
            // A key of the query is there or it is not; there is no null.
            let description = schema.as_object_mut().and_then(|it| it.remove("description")).unwrap_or_default();
            let schema = without_null(schema);
            let is_required = required.as_array().is_some_and(|all| all.iter().any(|it| it == name));
            self.parameters.push(
                json!({ "name": name, "in": "query", "required": is_required, "description": description, "schema": schema }),
            );
        }
        self.problems(&[400])
    }

    fn header(mut self, name: &str, description: &str) -> Self {
        let schema = json!({ "type": "string" });
        self.parameters.push(json!({ "name": name, "in": "header", "description": description, "schema": schema }));
        self
    }

    /// A JSON document that may be left out.
    fn body<T: JsonSchema>(self) -> Self {
        let schema = self.api.requests.subschema_for::<T>();
        self.content(json!({ "application/json": { "schema": schema } }), false)
    }

    fn content(mut self, content: Value, required: bool) -> Self {
        self.value.insert("requestBody".into(), json!({ "content": content, "required": required }));
        self.problems(&[400])
    }

    fn answers<T: JsonSchema>(self, status: u16, description: &str) -> Self {
        let schema = self.api.answers.subschema_for::<T>();
        self.answer(status, description, json!({ "application/json": { "schema": schema } }))
    }

    fn answer(mut self, status: u16, description: &str, content: Value) -> Self {
        self.responses.insert(status.to_string(), json!({ "description": description, "content": content }));
        self
    }

    fn empty(mut self, status: u16, description: &str) -> Self {
        self.responses.insert(status.to_string(), json!({ "description": description }));
        self
    }

    /// 202 with a place to ask again, or the outcome for those who wait.
    fn operation(self) -> Self {
        let mut op = self.answers::<OperationView>(200, "It has ended").answers::<OperationView>(202, "It is under way");
        for status in ["200", "202"] {
            op.responses[status]["headers"] =
                json!({ "Location": { "description": "Where to ask again", "schema": { "type": "string" } } });
        }
        op
    }

    fn problems(mut self, statuses: &[u16]) -> Self {
        for status in statuses {
            let mut response = json!({
                "description": why(*status),
                "content": { PROBLEM_JSON: { "schema": { "$ref": "#/components/schemas/ProblemDetails" } } },
            });
            let header = match status {
                401 => Some(("WWW-Authenticate", "string")),
                429 => Some(("Retry-After", "integer")),
                _ => None,
            };
            if let Some((name, kind)) = header {
                response["headers"] = json!({ name: { "schema": { "type": kind }, "required": true } });
            }
            self.responses.insert(status.to_string(), response);
        }
        self
    }

    /// Needs no token.
    fn open(mut self) -> Self {
        self.value.insert("security".into(), json!([]));
        self
    }

    fn add(mut self) {
        if !self.parameters.is_empty() {
            self = self.problems(&[400]);
            self.value.insert("parameters".into(), self.parameters.into());
        }
        self.value.insert("responses".into(), self.responses.into());
        let path = self.api.paths.entry(self.path).or_insert_with(|| json!({}));
        let other = path.as_object_mut().and_then(|path| path.insert(self.method.into(), self.value.into()));
        assert!(other.is_none(), "BUG: {} {} is described twice", self.method, self.path);
    }
}

fn path_parameter(name: &str) -> Value {
    let last = NAME_BYTES_MAX - 1;
    let schema = match name {
        "name" => json!({ "type": "string", "pattern": format!("^[a-z0-9][a-z0-9_-]{{0,{last}}}$") }),
        "version" => json!({ "type": "string", "pattern": format!("^[A-Za-z0-9][A-Za-z0-9._+-]{{0,{last}}}$") }),
        _ => json!({ "type": "string", "minLength": 1 }),
    };
    json!({ "name": name, "in": "path", "required": true, "schema": schema })
}

/// `get-jobs-name-dead-letters`
fn operation_id(method: &str, path: &str) -> String {
    let words = path.split(['/', '{', '}', '.']).filter(|word| !word.is_empty() && *word != API_VERSION);
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("-")
}

/// `Option<T>` of a query, as `T`.
fn without_null(mut schema: Value) -> Value {
    if let Some(types) = schema["type"].as_array() {
        schema["type"] = types.iter().find(|kind| *kind != "null").cloned().unwrap_or_default();
    }
    let other = schema["anyOf"].as_array().and_then(|all| all.iter().find(|one| one["type"] != "null")).cloned();
    if let Some(object) = schema.as_object_mut().filter(|it| it.get("type").is_some_and(Value::is_null)) {
        object.remove("type");
    }
    other.unwrap_or(schema)
}

fn why(status: u16) -> &'static str {
    match status {
        400 => "The request is not understood",
        401 => "A token is needed, or the one that was sent is not known",
        403 => "The token may only read, or the request comes from a page of another site",
        404 => "There is no such thing",
        408 => "The body takes too long",
        409 => "Not in this state",
        413 => "The body is too large",
        414 => "The path is too long",
        415 => "The body's type is not understood",
        422 => "The document has problems",
        429 => "Too many requests of this client",
        431 => "The headers are too large",
        500 => "The job, the storage or Tidegate itself failed",
        503 => "The host is coming up, going down, or full",
        504 => "No answer in time",
        _ => unreachable!("BUG: nobody answers {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every `$ref` leads somewhere.
    fn check_refs(value: &Value, document: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    let pointer = target.strip_prefix('#').expect("a reference within the document");
                    assert!(document.pointer(pointer).is_some(), "{target} leads nowhere");
                }
                map.values().for_each(|value| check_refs(value, document));
            }
            Value::Array(all) => all.iter().for_each(|value| check_refs(value, document)),
            _ => {}
        }
    }

    #[test]
    fn references_lead_somewhere_and_operations_have_ids_of_their_own() {
        let document = document();
        check_refs(&document, &document);
        let operations = document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
        let ids: Vec<_> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    }

    #[test]
    fn requests_refuse_unknown_keys_and_answers_do_not() {
        let document = document();
        assert_eq!(document["components"]["schemas"]["StopRequest"]["additionalProperties"], false);
        assert_eq!(document["components"]["schemas"]["JobView"].get("additionalProperties"), None);
        let wait = &document["paths"]["/v1/jobs/{name}/stop"]["post"]["parameters"][1];
        assert_eq!(
            (&wait["name"], &wait["schema"]["type"], &wait["required"]),
            (&json!("wait"), &json!("string"), &json!(false))
        );
    }
}
