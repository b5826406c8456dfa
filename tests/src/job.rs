//! Modules and jobs of a host, as a test handles them.

use crate::host::Host;
use crate::output;
use crate::wait::until;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// For a job to get into a state. Bounded jobs of the tests run for some seconds.
const STATE_LIMIT: Duration = Duration::from_secs(120);

impl Host {
    /// Builds a guest of the workspace and pushes it as `name@1.0.0`.
    #[track_caller]
    pub fn push(&self, package: &str) {
        let path = guest_build::component(package);
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self.client().put(&format!("/v1/modules/{package}/1.0.0"), "application/wasm", &bytes).document();
    }

    /// Creates or replaces the job under its own name.
    #[track_caller]
    pub fn put_job(&self, job: &Value) -> Value {
        self.client().put_json(&format!("/v1/jobs/{}", name_of(job)), job).document()
    }

    #[track_caller]
    pub fn job(&self, name: &str) -> Value {
        self.client().get(&format!("/v1/jobs/{name}")).document()
    }

    /// Waits until the job is in a state. A job that has failed gets into no other.
    #[track_caller]
    pub fn wait_for_state(&self, name: &str, state: &str) -> Value {
        let path = format!("/v1/jobs/{name}");
        until(&format!("the job {name} is {state}"), STATE_LIMIT, || {
            let job = self.client().try_get(&path)?.document();
            let found = job["status"]["state"].as_str().unwrap_or_default();
            if found == state {
                return Ok(job);
            }
            assert!(found != "failed", "the job {name} failed instead of getting {state}: {}", job["status"]["error"]);
            Err(job["status"].to_string())
        })
    }

    /// Waits until so many lines are committed to a folder.
    #[track_caller]
    pub fn wait_for_lines(&self, folder: &Path, at_least: usize) {
        until(&format!("{at_least} lines in {}", folder.display()), STATE_LIMIT, || {
            let found = output::lines(folder).len();
            if found >= at_least { Ok(()) } else { Err(format!("{found} lines")) }
        });
    }

    /// Completed checkpoints of this run of the job, oldest first.
    #[track_caller]
    pub fn completed_checkpoints(&self, name: &str) -> Vec<Value> {
        let list = self.client().get(&format!("/v1/jobs/{name}/checkpoints")).document();
        let all = list["checkpoints"].as_array().cloned().unwrap_or_else(|| panic!("no list of checkpoints: {list}"));
        all.into_iter().filter(|checkpoint| checkpoint["status"] == "completed").collect()
    }

    #[track_caller]
    pub fn wait_for_checkpoints(&self, name: &str, at_least: usize) {
        until(&format!("{at_least} completed checkpoints of {name}"), STATE_LIMIT, || {
            let found = self.completed_checkpoints(name).len();
            if found >= at_least { Ok(()) } else { Err(format!("{found} completed; {}", self.job(name)["status"])) }
        });
    }

    /// Stops the job with a savepoint and answers with its document.
    #[track_caller]
    pub fn stop_with_savepoint(&self, name: &str) -> Value {
        let operation = self.client().post(&format!("/v1/jobs/{name}/stop?wait=60s"), &json!({ "savepoint": true })).document();
        assert_eq!(operation["state"], "completed", "{operation}");
        self.wait_for_state(name, "stopped");
        operation["savepoint"].clone()
    }

    /// Stops the job at once; what was not committed is done again after the next start.
    #[track_caller]
    pub fn stop(&self, name: &str) {
        let operation = self.client().post(&format!("/v1/jobs/{name}/stop?wait=60s"), &json!({})).document();
        assert_eq!(operation["state"], "completed", "{operation}");
    }

    /// `from`: `"latest"`, `"fresh"` or `{"savepoint": "<id>"}`.
    #[track_caller]
    pub fn start_job(&self, name: &str, from: Value) {
        self.client().post(&format!("/v1/jobs/{name}/start"), &json!({ "from": from })).document();
    }

    /// All of them, oldest first.
    #[track_caller]
    pub fn dead_letters(&self, name: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut before = String::new();
        loop {
            // Pages are small so that there are several of them.
            let page = self.client().get(&format!("/v1/jobs/{name}/dead-letters?limit=7{before}")).document();
            all.extend(page["dead_letters"].as_array().cloned().unwrap_or_else(|| panic!("no list of dead letters: {page}")));
            match page["next"].as_str() {
                Some(next) => before = format!("&before={next}"),
                None => break,
            }
        }
        all.reverse();
        all
    }
}

/// The name that a job document has.
#[track_caller]
pub fn name_of(job: &Value) -> &str {
    job["name"].as_str().expect("a job has a name")
}

/// The job with barriers that overtake at once, and batches so small that its channels are full when nobody paces the source.
pub fn unaligned(mut job: Value) -> Value {
    job["checkpoint"]["unaligned"] = json!(true);
    job["batch"] = json!({ "rows": 64 });
    job
}

/// Running totals over the generator's events, written as JSON lines to `out` (an absolute path).
pub struct TotalsJob {
    pub name: &'static str,
    pub records: u64,
    pub keys: u64,
    pub splits: u64,
    pub parallelism: u32,
    /// Records per second; `None`: as fast as it goes.
    pub rate: Option<u64>,
    pub interval: &'static str,
}

impl TotalsJob {
    pub fn document(&self, out: &Path) -> Value {
        let mut job = json!({
            "name": self.name,
            "checkpoint": { "interval": self.interval },
            "source": [{
                "name": "bids", "connector": "generator", "format": "json", "parallelism": self.parallelism.min(self.splits as u32),
                "keys": self.keys, "records": self.records, "splits": self.splits,
            }],
            "operator": [{
                "name": "totals", "module": "running-totals@1.0.0", "input": ["bids"], "key": { "json": "/bidder" },
                "parallelism": self.parallelism, "config": { "format": "json" },
            }],
            "sink": [{ "name": "out", "connector": "file", "input": ["totals"], "path": out }],
        });
        if let Some(rate) = self.rate {
            job["source"][0]["rate"] = json!(rate);
        }
        job
    }

    pub fn input(&self) -> crate::totals::Input {
        crate::totals::Input { records: self.records, keys: self.keys, splits: self.splits }
    }
}
