//! Files that are damaged or gone: the job goes back to the newest checkpoint that is whole and says so, or says what it would do.

use crate::*;
use serde_json::json;
use tidegate_tests::cli::tidegate;
use tidegate_tests::damage::Damage;

#[test]
fn a_damaged_newest_checkpoint_is_stepped_over_and_no_row_is_there_twice() {
    let job = job(1_000);
    let mut host = started(&job);
    let files = folder(&host, job.name);
    let manifest = || vec![files.manifest(0)];
    let segments = || files.newest_segments();
    let both = || vec![files.manifest(0), files.manifest(1)];
    let last_entry = || vec![files.commits().last().expect("a commit").0.clone()];
    let mut cases: Vec<(Damage, &dyn Fn() -> Vec<std::path::PathBuf>)> = Vec::new();
    for damage in Damage::ALL {
        cases.push((damage, &manifest));
        cases.push((damage, &segments));
    }
    cases.push((Damage::Flipped, &both));
    // An entry that is gone leaves no trace in the log; its output does.
    cases.push((Damage::Deleted, &last_entry));
    for (number, (damage, pick)) in cases.into_iter().enumerate() {
        host.kill();
        let (paths, before) = (pick(), files.commits());
        assert!(!paths.is_empty(), "{damage:?}: nothing to damage");
        paths.iter().for_each(|path| damage.to(path));
        host.restart();
        host.wait_for_checkpoints(job.name, 4);
        let restored = host.job(job.name)["status"]["restored"].clone();
        let context = format!("case {number}: {damage:?} of {paths:?}: {restored}");
        let newest = before.last().expect("a commit").1["pointer"]["checkpoint"].as_u64().expect("a number");
        assert!(restored["checkpoint"].as_u64().is_some_and(|checkpoint| checkpoint < newest), "{context}");
        let told = restored["damaged"].as_array().map_or(0, Vec::len);
        let expected = if number == 6 { 2 } else { usize::from(number < 6) };
        assert_eq!(told, expected, "{context}");
        assert!(host.log_text().contains("the job is restored from an older checkpoint"), "{context}");
    }
    host.wait_for_state(job.name, "finished");
    assert_exactly_once(&host, &job);
}

#[test]
fn rows_that_a_reader_has_taken_away_are_written_again_only_if_the_user_says_so() {
    let job = job(2_000);
    let mut host = started(&job);
    let files = folder(&host, job.name);
    host.kill();
    let out = host.work().join("out");
    let last = output::files(&out).into_iter().max_by_key(|file| file.name[8..16].to_owned()).expect("output").name;
    std::fs::remove_file(out.join(&last)).expect("a reader takes it");
    Damage::Flipped.to(&files.manifest(0));
    host.restart();
    let error = error_of_failed(&host, job.name);
    for part in ["is damaged: its checksum is", "have been taken away would be written again", &last, "--allow-step-back"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let shown = tidegate().args(["job", "show", job.name, "--server", host.url()]).finish();
    assert!(shown.output.contains("--allow-step-back"), "{shown}");
    // Nothing was done on the way to the question.
    host.start_job(job.name, json!("latest"));
    error_of_failed(&host, job.name);
    let request = json!({ "from": "latest", "allow_step_back": true });
    host.client().post(&format!("/v1/jobs/{}/start", job.name), &request).document();
    let finished = host.wait_for_state(job.name, "finished");
    assert!(finished["status"]["restored"]["repeated"]["out"].to_string().contains(&last), "{finished}");
    assert_exactly_once(&host, &job);
}

#[test]
fn a_damaged_last_entry_of_the_log_is_a_question_to_the_user() {
    let job = job(2_000);
    let mut host = started(&job);
    let files = folder(&host, job.name);
    host.kill();
    let (entry, _) = files.commits().pop().expect("a commit");
    Damage::Flipped.to(&entry);
    host.restart();
    let error = error_of_failed(&host, job.name);
    for part in ["of the decision log: it is damaged", "--allow-step-back"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let request = json!({ "from": "latest", "allow_step_back": true });
    host.client().post(&format!("/v1/jobs/{}/start", job.name), &request).document();
    host.wait_for_state(job.name, "finished");
    assert_exactly_once(&host, &job);
}

#[test]
fn an_entry_lost_in_the_middle_of_the_log_changes_nothing() {
    for damage in [Damage::Flipped, Damage::Deleted] {
        let job = job(4_000);
        let mut host = started(&job);
        let files = folder(&host, job.name);
        host.kill();
        let commits = files.commits();
        damage.to(&commits[commits.len() - 2].0);
        host.restart();
        host.wait_for_state(job.name, "finished");
        assert_exactly_once(&host, &job);
    }
}

#[test]
fn with_everything_damaged_the_job_fails_and_never_begins_from_nothing() {
    let job = job(2_000);
    let mut host = started(&job);
    let files = folder(&host, job.name);
    host.kill();
    let before = output::sorted_lines(&host.work().join("out"));
    for at in 0..files.commits().len() {
        if files.manifest(at).exists() {
            Damage::Flipped.to(&files.manifest(at));
        }
    }
    host.restart();
    let error = error_of_failed(&host, job.name);
    assert!(error.starts_with("no checkpoint of the job can be restored: checkpoint "), "{error}");
    assert!(error.contains("--from fresh"), "{error}");
    host.kill();
    std::fs::remove_dir_all(files.0.join("commits")).expect("the log goes");
    host.restart();
    host.start_job(job.name, json!("latest"));
    let error = error_of_failed(&host, job.name);
    assert!(error.contains("the decision log is empty, but checkpoints were written"), "{error}");
    assert_eq!(output::sorted_lines(&host.work().join("out")), before, "nothing was written or taken back");
}

#[test]
fn a_damaged_savepoint_is_named_and_leaves_the_job_as_it_was() {
    let job = job(4_000);
    let host = started(&job);
    let savepoint = host.stop_with_savepoint(job.name);
    let segments = std::path::Path::new(savepoint["path"].as_str().expect("a path")).join("segments/totals");
    let segment = std::fs::read_dir(segments).expect("segments").next().expect("one").expect("readable").path();
    Damage::Flipped.to(&segment);
    let start = format!("/v1/jobs/{}/start", job.name);
    let problem = host.client().post(&start, &json!({ "from": { "savepoint": savepoint["id"] } })).problem(422);
    let named = segment.file_name().expect("a name").to_str().expect("UTF-8");
    assert!(problem["problems"][0]["message"].as_str().is_some_and(|text| text.contains(named)), "{problem}");
    assert_eq!(host.job(job.name)["status"]["state"], "stopped");
    host.start_job(job.name, json!("latest"));
    host.wait_for_state(job.name, "finished");
    assert_exactly_once(&host, &job);
}
