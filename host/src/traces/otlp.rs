//! OTLP as JSON: what a collector takes at `/v1/traces`.

use super::checkpoint::{Phase, Trace};
use crate::durable_file::unique_id;
use serde_json::{Value, json};

/// `OTEL_EXPORTER_OTLP_ENDPOINT` names the collector, not the path.
pub fn traces_url(endpoint: &str) -> Result<String, String> {
    let trimmed = endpoint.trim_end_matches('/');
    if !trimmed.starts_with("http://") || trimmed.len() == "http://".len() {
        return Err(format!("otlp endpoint `{endpoint}`: write it as http://HOST:4318"));
    }
    Ok(if trimmed.ends_with("/v1/traces") { trimmed.to_owned() } else { format!("{trimmed}/v1/traces") })
}

pub fn request(traces: &[Trace]) -> Value {
    let spans: Vec<Value> = traces.iter().flat_map(spans).collect();
    let version = env!("CARGO_PKG_VERSION");
    json!({ "resourceSpans": [{
        "resource": { "attributes": [text("service.name", "tidegate"), text("service.version", version)] },
        "scopeSpans": [{ "scope": { "name": "tidegate.checkpoint", "version": version }, "spans": spans }],
    }] })
}

fn spans(trace: &Trace) -> Vec<Value> {
    let (trace_id, root) = (unique_id(), span_id());
    let kind = serde_json::to_value(trace.kind).expect("BUG: a kind is not JSON");
    let mut attributes = vec![
        text("tidegate.job", &trace.job),
        number("tidegate.checkpoint", trace.checkpoint),
        text("tidegate.kind", kind.as_str().unwrap_or_default()),
        number("tidegate.bytes", trace.bytes),
        json!({ "key": "tidegate.full", "value": { "boolValue": trace.full } }),
    ];
    let status = match &trace.error {
        None => json!({ "code": 1 }),
        Some(reason) => {
            attributes.push(text("tidegate.reason", reason));
            json!({ "code": 2, "message": reason })
        }
    };
    let mut spans = vec![json!({
        "traceId": trace_id, "spanId": root, "name": "checkpoint", "kind": 1, "attributes": attributes, "status": status,
        "startTimeUnixNano": nanos(trace.begin_us), "endTimeUnixNano": nanos(trace.end_us),
    })];
    spans.extend(trace.phases.iter().map(|Phase { name, task, begin_us, end_us }| {
        let attributes: Vec<_> = task.iter().map(|task| text("tidegate.task", task)).collect();
        json!({
            "traceId": trace_id, "spanId": span_id(), "parentSpanId": root, "name": name, "kind": 1, "attributes": attributes,
            "startTimeUnixNano": nanos(*begin_us), "endTimeUnixNano": nanos(*end_us),
        })
    }));
    spans
}

fn span_id() -> String {
    unique_id().split_off(16)
}

/// 64-bit numbers are strings in OTLP's JSON.
fn nanos(us: u64) -> String {
    (u128::from(us) * 1000).to_string()
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn number(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_collector_with_or_without_the_path() {
        for endpoint in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            assert_eq!(traces_url(endpoint).unwrap(), "http://c:4318/v1/traces");
        }
        for wrong in ["c:4318", "https://c", "http://", ""] {
            assert!(traces_url(wrong).unwrap_err().contains("http://HOST:4318"), "{wrong}");
        }
    }
}
