//! CronJob: a Job whenever its schedule says so.

use std::cmp::Reverse;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::action::Action;
use super::super::alarms::Alarms;
use super::super::world::{Key, World};
use super::job::ended_as;
use super::{count, object, template};
use crate::cron::Schedule;
use crate::registry::Part;

const CRON_JOBS: &str = "cronjobs.batch";
const JOBS: &str = "jobs.batch";
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// How far back a time that was missed is looked for, in hours; the shortest that finds one counts.
const WINDOWS: [i64; 4] = [1, 24, 24 * 32, 24 * 366 * 5];

/// The writes that a CronJob wants now. The alarm tells when its next time comes.
pub(in super::super) fn plan(world: &World, key: &Key, cron: &Value, alarms: &mut Alarms) -> Vec<Action> {
    if &*key.kind != CRON_JOBS || object::terminating(cron) {
        return Vec::new();
    }
    let uid = object::uid(cron);
    let jobs: Vec<&Value> = world
        .owned(uid, JOBS)
        .map(|job| &**job)
        .filter(|job| object::controller(job) == Some(uid) && !object::terminating(job))
        .collect();
    let last = jobs.iter().filter_map(|job| time(&job["metadata"]["annotations"][SCHEDULED]));
    let last = last.chain(time(&cron["status"]["lastScheduleTime"])).max();
    let mut actions: Vec<Action> = report(key, cron, &jobs, last).into_iter().collect();
    actions.extend(surplus(&cron["spec"], &jobs));
    if cron["spec"]["suspend"] != true {
        actions.extend(start(world, key, cron, &jobs, last, alarms));
    }
    actions
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

fn running<'a>(jobs: &[&'a Value]) -> Vec<&'a Value> {
    jobs.iter().copied().filter(|job| ended_as(job).is_none()).collect()
}

/// The status: what runs, and when the last began and the last went well.
fn report(key: &Key, cron: &Value, jobs: &[&Value], last: Option<Timestamp>) -> Option<Action> {
    let references: Vec<Value> = running(jobs)
        .iter()
        .map(|job| {
            let meta = &job["metadata"];
            json!({"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "namespace": meta["namespace"],
                "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]})
        })
        .collect();
    let old = &cron["status"];
    let names = |list: &Value| object::list(list).map(|r| r["uid"].clone()).collect::<Vec<_>>();
    let active = if references.is_empty() { Value::Null } else { json!(references) };
    let succeeded = jobs.iter().filter(|job| ended_as(job) == Some("Complete"));
    let succeeded = succeeded.filter_map(|job| time(&job["status"]["completionTime"]));
    let succeeded = succeeded.chain(time(&old["lastSuccessfulTime"])).max();
    let mut status = json!({});
    if names(&old["active"]) != names(&active) {
        status["active"] = active;
    }
    for (field, at) in [("lastScheduleTime", last), ("lastSuccessfulTime", succeeded)] {
        if at != time(&old[field]) {
            status[field] = json!(at.map(object::time));
        }
    }
    let changed = status.as_object().is_some_and(|fields| !fields.is_empty());
    let patch = json!({"metadata": {"uid": object::uid(cron)}, "status": status});
    changed.then(|| Action::Patch { key: key.clone(), part: Part::Status, patch })
}

/// Deletes the oldest of the Jobs that ended, beyond those that are to be kept.
fn surplus(spec: &Value, jobs: &[&Value]) -> Vec<Action> {
    let limits = [("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")];
    let mut gone = Vec::new();
    for (end, limit) in limits {
        let Some(kept) = count(&spec[limit]) else { continue };
        let mut ended: Vec<&&Value> = jobs.iter().filter(|job| ended_as(job) == Some(end)).collect();
        ended.sort_by_key(|job| Reverse((time(&job["status"]["startTime"]), object::name(job))));
        gone.extend(ended.into_iter().skip(kept).map(|job| delete(job)));
    }
    gone
}

fn delete(job: &Value) -> Action {
    let key = Key::new(JOBS, object::namespace(job), object::name(job));
    Action::Delete { key, uid: object::uid(job).to_owned(), grace: None }
}

/// The Job whose time has come, if there is one.
fn start(
    world: &World,
    key: &Key,
    cron: &Value,
    jobs: &[&Value],
    last: Option<Timestamp>,
    alarms: &mut Alarms,
) -> Vec<Action> {
    let (spec, now) = (&cron["spec"], world.now);
    let zone = spec["timeZone"].as_str().map_or(Ok(TimeZone::UTC), TimeZone::get);
    let schedule = Schedule::parse(spec["schedule"].as_str().unwrap_or_default());
    let (Ok(zone), Ok(schedule)) = (zone, schedule) else {
        tracing::warn!("{key} has a schedule or a time zone that is none: it starts nothing");
        return Vec::new();
    };
    let Some(mut since) = last.or_else(|| time(&cron["metadata"]["creationTimestamp"])) else {
        return Vec::new();
    };
    if let Some(deadline) = spec["startingDeadlineSeconds"].as_i64() {
        since = since.max(now.saturating_sub(SignedDuration::from_secs(deadline)).unwrap_or(since));
    }
    let due = latest(&schedule, since, now, &zone);
    let from = if matches!(schedule, Schedule::Every(_)) { due.unwrap_or(since) } else { now };
    if let Some(next) = schedule.next(from, &zone) {
        alarms.set(key, next);
    }
    let Some(due) = due.filter(|due| last.is_none_or(|last| last < *due)) else { return Vec::new() };
    let active = running(jobs);
    let mut actions = Vec::new();
    match spec["concurrencyPolicy"].as_str() {
        // It is looked at again when the last one ends.
        Some("Forbid") if !active.is_empty() => return Vec::new(),
        Some("Replace") => actions.extend(active.into_iter().map(delete)),
        _ => {}
    }
    let job = make(cron, due, &zone);
    let there = world.get(&Key::new(JOBS, &key.namespace, object::name(&job))).is_some();
    if !there {
        actions.push(Action::Create { kind: JOBS, namespace: key.namespace.to_string(), object: job });
    }
    actions
}

/// The last time of a schedule after `since` that is not after `now`.
fn latest(schedule: &Schedule, since: Timestamp, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    if let Schedule::Every(length) = schedule {
        let times = now.duration_since(since).as_secs().max(0) / length.as_secs().max(1);
        let passed = SignedDuration::from_secs(times.saturating_mul(length.as_secs()));
        return (times > 0).then(|| since.checked_add(passed).ok())?;
    }
    WINDOWS.iter().find_map(|hours| {
        let start = now.saturating_sub(SignedDuration::from_hours(*hours)).unwrap_or(since).max(since);
        let next = |after: &Timestamp| schedule.next(*after, zone).filter(|at| *at <= now);
        std::iter::successors(next(&start), next).last()
    })
}

fn make(cron: &Value, due: Timestamp, zone: &TimeZone) -> Value {
    let wanted = &cron["spec"]["jobTemplate"];
    let mut annotations = wanted["metadata"]["annotations"].clone();
    if !annotations.is_object() {
        annotations = json!({});
    }
    let local = due.to_zoned(zone.clone());
    let offset = if local.offset().is_zero() { "Z" } else { "%:z" };
    annotations[SCHEDULED] = json!(local.strftime(&format!("%Y-%m-%dT%H:%M:%S{offset}")).to_string());
    let name = format!("{}-{}", object::name(cron), due.as_second() / 60);
    let mut meta =
        json!({"name": name, "annotations": annotations, "ownerReferences": template::owned_by(cron)});
    if wanted["metadata"]["labels"].is_object() {
        meta["labels"] = wanted["metadata"]["labels"].clone();
    }
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": wanted["spec"]})
}

#[cfg(test)]
#[path = "cron_job_tests.rs"]
mod tests;
