//! The description and the router, against each other.

use super::*;
use std::collections::BTreeSet;

#[test]
fn every_route_is_described_and_nothing_else() {
    let host = TestHost::open();
    let document: Value = host.get("/v1/openapi.json").expect(200);
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        described.extend(methods.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())));
    }
    let mut served = BTreeSet::new();
    for path in crate::http::routes(1).paths {
        let concrete = path.replace("{name}", "a").replace("{version}", "1").replace("{id}", "x");
        // The router itself says which methods a path has, when it is asked with one that none has.
        let answer = host.call("PATCH", &concrete, &[], b"");
        answer.problem(405);
        // HEAD comes with every GET.
        let methods = answer.allow.unwrap_or_else(|| panic!("{path} does not say what is allowed"));
        served.extend(methods.split(',').filter(|method| *method != "HEAD").map(|method| format!("{method} {path}")));
    }
    assert_eq!(served, described);
}

#[test]
fn what_is_described_as_an_answer_is_what_comes() {
    let host = TestHost::open();
    host.create("a");
    let document: Value = host.get("/v1/openapi.json").expect(200);
    // Every key that the description calls required is there. Schemathesis looks closer, over more answers.
    for (path, schema) in [("/v1/jobs/a", "JobView"), ("/v1/version", "VersionView"), ("/v1/jobs/a/graph", "JobGraph")] {
        let answer: Value = host.get(path).expect(200);
        let required = document["components"]["schemas"][schema]["required"].as_array().unwrap();
        assert!(!required.is_empty());
        for key in required {
            assert!(answer.get(key.as_str().unwrap()).is_some(), "{schema}.{key} in {answer}");
        }
    }
}
