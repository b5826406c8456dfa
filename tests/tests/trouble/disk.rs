//! A disk that is full, or that may only be read. These tests mount a small file system of their own, for which they need to be root;
//! without that they say so and test nothing.

use crate::*;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Disk(PathBuf);

impl Disk {
    /// `None`: this process may not mount anything.
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a folder to mount at");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"]).arg(at).output();
        let is_mounted = mounted.is_ok_and(|output| output.status.success());
        if !is_mounted {
            eprintln!("not tested: no file system can be mounted here");
        }
        is_mounted.then(|| Self(at.to_owned()))
    }

    fn fill(&self) {
        let mut ballast = std::fs::File::create(self.0.join("ballast")).expect("a file");
        for size in [1 << 20, 1 << 12, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).expect("removed");
    }

    fn remount(&self, how: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).status().expect("mount runs");
        assert!(status.success(), "remount {how}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A host whose data and output lie on a disk of their own.
fn host_on_a_small_disk() -> Option<(Host, Disk)> {
    let mut host = Host::prepared();
    let disk = Disk::mount(&host.data())?;
    host.restart();
    host.push("running-totals");
    Some((host, disk))
}

fn assert_totals(job: &TotalsJob, out: &Path) {
    let verdict = totals::check(job.input(), output::lines(out).iter().map(|line| Total::from_json(line)));
    assert!(verdict.is_exactly_once() && verdict.records == job.records, "{verdict}");
    assert_eq!(output::staged(out), Vec::<String>::new());
}

#[track_caller]
fn wait_for_error(host: &Host, job: &str, parts: &[&str]) {
    until(&format!("an error that says {parts:?}"), LIMIT, || {
        let view = host.job(job);
        let error = view["status"]["error"].as_str().unwrap_or_default().to_owned();
        if parts.iter().all(|part| error.contains(part)) { Ok(()) } else { Err(view["status"].to_string()) }
    });
}

#[test]
fn a_job_on_a_full_disk_waits_says_so_and_goes_on_when_there_is_room() {
    let Some((host, disk)) = host_on_a_small_disk() else { return };
    let job = job(2_000);
    let out = host.data().join("out");
    let mut document = job.document(&out);
    document["restart"] = json!({ "strategy": "exponential-delay", "initial": "50ms", "max": "500ms" });
    host.put_job(&document);
    host.wait_for_checkpoints(job.name, 3);
    disk.fill();
    wait_for_error(&host, job.name, &["No space left on device", "make room"]);
    let refused = host.client().put_json("/v1/jobs/another", &TotalsJob { name: "another", ..job }.document(&out)).problem(500);
    assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("No space left on device")), "{refused}");
    assert!(refused["remedy"].is_string(), "{refused}");
    disk.make_room();
    host.wait_for_state(job.name, "finished");
    assert_totals(&job, &out);
}

#[test]
fn a_folder_that_may_only_be_read_is_refused_at_the_start() {
    let Some((mut host, disk)) = host_on_a_small_disk() else { return };
    let job = job(2_000);
    let out = host.data().join("out");
    host.put_job(&job.document(&out));
    host.wait_for_checkpoints(job.name, 3);
    host.kill();
    disk.remount("ro");
    host.spawn();
    assert!(!host.wait_for_exit(LIMIT).success());
    let log = host.log_text();
    assert!(log.contains("Read-only file system") && log.contains("mount it for writing"), "{log}");
    disk.remount("rw");
    host.restart();
    host.wait_for_state(job.name, "finished");
    assert_totals(&job, &out);
}
