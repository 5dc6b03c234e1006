//! Job: pods until enough of them ended well.

use serde_json::{Value, json};

use super::super::action::Action;
use super::super::world::{Key, World};
use super::{BURST, count, delete, object, own_pods, pods, report, template};

pub(super) fn plan(world: &World, key: &Key, job: &Value, now: &str) -> Vec<Action> {
    if ended(job) {
        return Vec::new();
    }
    let pods = own_pods(world, job);
    let tally = Tally::of(&pods);
    let mut actions = scale(job, &pods, &tally);
    actions.extend(report(key, job, status(job, &pods, &tally, now)));
    actions
}

struct Tally {
    succeeded: usize,
    failed: usize,
}

impl Tally {
    fn of(pods: &[&Value]) -> Self {
        let count = |phase: &str| pods.iter().filter(|pod| pod["status"]["phase"] == phase).count();
        Tally { succeeded: count("Succeeded"), failed: count("Failed") }
    }

    fn complete(&self, job: &Value) -> bool {
        match count(&job["spec"]["completions"]) {
            Some(wanted) => self.succeeded >= wanted,
            None => self.succeeded > 0,
        }
    }

    fn hopeless(&self, job: &Value) -> bool {
        self.failed > count(&job["spec"]["backoffLimit"]).unwrap_or(6)
    }
}

fn ended(job: &Value) -> bool {
    ended_as(job).is_some()
}

/// How a Job ended, if it did: Complete or Failed.
pub(super) fn ended_as(job: &Value) -> Option<&'static str> {
    let has = |kind: &str| {
        object::list(&job["status"]["conditions"]).any(|c| c["type"] == kind && c["status"] == "True")
    };
    ["Complete", "Failed"].into_iter().find(|kind| has(kind))
}

fn scale(job: &Value, pods: &[&Value], tally: &Tally) -> Vec<Action> {
    let mut active: Vec<&Value> = pods.iter().copied().filter(|pod| object::active(pod)).collect();
    let parallel = count(&job["spec"]["parallelism"]).unwrap_or(1);
    let left = count(&job["spec"]["completions"]).map(|wanted| wanted.saturating_sub(tally.succeeded));
    let stopped = job["spec"]["suspend"] == true || tally.complete(job) || tally.hopeless(job);
    let wanted = if stopped { 0 } else { parallel.min(left.unwrap_or(parallel)) };
    if active.len() > wanted {
        pods::least_worth_first(&mut active);
        return active[..active.len() - wanted].iter().map(|pod| delete(pod)).collect();
    }
    let name = object::name(job);
    let uid = object::uid(job);
    let labels = [
        ("batch.kubernetes.io/job-name", name.to_owned()),
        ("job-name", name.to_owned()),
        ("batch.kubernetes.io/controller-uid", uid.to_owned()),
        ("controller-uid", uid.to_owned()),
    ];
    let create = || template::create(job, template::pod(job, &format!("{name}-"), &labels));
    (active.len()..wanted).take(BURST).map(|_| create()).collect()
}

fn status(job: &Value, pods: &[&Value], tally: &Tally, now: &str) -> Value {
    let active: Vec<&Value> = pods.iter().copied().filter(|pod| object::active(pod)).collect();
    let old = &job["status"];
    let started = if old["startTime"].is_null() { json!(now) } else { old["startTime"].clone() };
    let mut status = json!({"active": active.len(), "ready": pods::ready(&active), "succeeded": tally.succeeded,
        "failed": tally.failed, "startTime": started});
    if tally.complete(job) {
        status["completionTime"] = json!(now);
        let message = "Reached expected number of succeeded pods";
        status["conditions"] =
            object::with_condition(&old["conditions"], "Complete", true, "CompletionsReached", message, now);
    } else if tally.hopeless(job) {
        let message = "Job has reached the specified backoff limit";
        status["conditions"] =
            object::with_condition(&old["conditions"], "Failed", true, "BackoffLimitExceeded", message, now);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(spec: Value) -> Value {
        let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "load", "namespace": "shop", "uid": "j"}, "spec": spec});
        job["spec"]["template"] = json!({"metadata": {}, "spec": {"restartPolicy": "Never"}});
        job
    }

    fn counted(job: &Value, phases: &[&str]) -> (usize, usize) {
        let pods: Vec<Value> = phases.iter().enumerate().map(|(i, phase)| {
            json!({"metadata": {"name": format!("p{i}"), "uid": format!("p{i}")}, "spec": {"nodeName": "n"}, "status": {"phase": phase}})
        }).collect();
        let pods: Vec<&Value> = pods.iter().collect();
        let actions = scale(job, &pods, &Tally::of(&pods));
        let made = actions.iter().filter(|a| matches!(a, Action::Create { .. })).count();
        (made, actions.len() - made)
    }

    #[test]
    fn so_many_at_a_time_until_enough_succeeded() {
        let job = job(json!({"parallelism": 2, "completions": 3}));
        assert_eq!(counted(&job, &[]), (2, 0));
        assert_eq!(counted(&job, &["Running", "Running"]), (0, 0));
        assert_eq!(counted(&job, &["Succeeded", "Running"]), (1, 0));
        assert_eq!(counted(&job, &["Succeeded", "Succeeded"]), (1, 0));
        assert_eq!(counted(&job, &["Succeeded", "Succeeded", "Succeeded", "Running"]), (0, 1));
    }

    #[test]
    fn the_pods_of_the_largest_job_are_made_in_parts() {
        let job = job(json!({"parallelism": i32::MAX, "completions": i32::MAX}));
        assert_eq!(counted(&job, &["Running"]), (BURST, 0));
    }

    #[test]
    fn a_job_that_fails_too_often_stops_and_a_suspended_one_has_no_pods() {
        let stubborn = job(json!({"backoffLimit": 1}));
        assert_eq!(counted(&stubborn, &["Failed"]), (1, 0));
        assert_eq!(counted(&stubborn, &["Failed", "Failed"]), (0, 0));
        assert_eq!(counted(&job(json!({"suspend": true})), &["Running"]), (0, 1));
    }
}
