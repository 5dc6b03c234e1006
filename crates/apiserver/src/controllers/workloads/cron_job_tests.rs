use super::super::super::sim::Sim;
use super::*;

fn cron(spec: Value) -> Sim {
    let mut sim = Sim::default();
    let mut cron = json!({"apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "c", "creationTimestamp": "2026-01-01T00:00:30Z"},
        "spec": {"schedule": "*/10 * * * *", "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1,
            "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {}}}}});
    json_patch::merge(&mut cron["spec"], &spec);
    sim.put(CRON_JOBS, cron);
    sim
}

/// Lets it become this time of the day, and says which Jobs there are then, by the minute of their time.
fn at(sim: &mut Sim, clock: &str) -> Vec<String> {
    sim.world.advance(format!("2026-01-01T{clock}Z").parse().unwrap());
    sim.world.dirty.insert(Key::new(CRON_JOBS, "shop", "c"));
    let mut alarms = Alarms::default();
    sim.settle(|world, dirty| {
        let each = dirty.iter().filter_map(|key| Some((key, world.get(key)?)));
        each.flat_map(|(key, object)| plan(world, key, object, &mut alarms)).collect()
    });
    let jobs = sim.world.of_kind(JOBS);
    jobs.map(|(_, job)| job["metadata"]["annotations"][SCHEDULED].as_str().unwrap()[11..16].to_owned())
        .collect()
}

fn end(sim: &mut Sim, clock: &str, how: &str) {
    let ended = |(_, job): &(&Key, &std::sync::Arc<Value>)| {
        job["metadata"]["annotations"][SCHEDULED].as_str().unwrap()[11..16] == *clock
    };
    let mut job = (**sim.world.of_kind(JOBS).find(ended).unwrap().1).clone();
    let time = format!("2026-01-01T{clock}:40Z");
    job["status"] =
        json!({"startTime": time, "completionTime": time, "conditions": [{"type": how, "status": "True"}]});
    sim.put(JOBS, job);
}

#[test]
fn a_job_at_each_time_and_once() {
    let mut sim = cron(json!({}));
    assert!(at(&mut sim, "00:09:59").is_empty());
    assert_eq!(at(&mut sim, "00:10:00"), ["00:10"]);
    assert_eq!(at(&mut sim, "00:10:05"), ["00:10"]);
    assert_eq!(at(&mut sim, "00:20:01"), ["00:10", "00:20"]);
    let job = sim.get(JOBS, &format!("c-{}", 1_767_225_600 / 60 + 10));
    assert_eq!(job["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!(job["metadata"]["ownerReferences"][0]["kind"], "CronJob");
    let status = &sim.get(CRON_JOBS, "c")["status"];
    assert_eq!(status["lastScheduleTime"], "2026-01-01T00:20:00Z");
    assert_eq!(status["active"].as_array().unwrap().len(), 2);
}

#[test]
fn of_the_times_that_were_missed_the_last_is_made_up_for_within_the_deadline() {
    assert_eq!(at(&mut cron(json!({})), "07:35:00"), ["07:30"]);
    assert!(at(&mut cron(json!({"startingDeadlineSeconds": 60})), "07:35:00").is_empty());
    assert_eq!(at(&mut cron(json!({"startingDeadlineSeconds": 600})), "07:35:00"), ["07:30"]);
    assert!(at(&mut cron(json!({"suspend": true})), "07:35:00").is_empty());
    assert_eq!(at(&mut cron(json!({"schedule": "0 3 * * *"})), "07:35:00"), ["03:00"]);
    let berlin = json!({"schedule": "0 7 * * *", "timeZone": "Europe/Berlin"});
    assert_eq!(at(&mut cron(berlin), "07:35:00"), ["07:00"]);
    assert_eq!(at(&mut cron(json!({"schedule": "@every 1h"})), "02:30:00"), ["02:00"]);
}

#[test]
fn one_that_forbids_waits_and_one_that_replaces_does_not() {
    let mut forbids = cron(json!({"concurrencyPolicy": "Forbid"}));
    at(&mut forbids, "00:10:00");
    assert_eq!(at(&mut forbids, "00:20:00"), ["00:10"]);
    end(&mut forbids, "00:10", "Complete");
    assert_eq!(at(&mut forbids, "00:21:00"), ["00:10", "00:20"]);
    let mut replaces = cron(json!({"concurrencyPolicy": "Replace"}));
    at(&mut replaces, "00:10:00");
    assert_eq!(at(&mut replaces, "00:20:00"), ["00:20"]);
}

#[test]
fn the_oldest_that_ended_go() {
    let mut sim = cron(json!({}));
    for (clock, how) in
        [("00:10", "Complete"), ("00:20", "Failed"), ("00:30", "Complete"), ("00:40", "Failed")]
    {
        at(&mut sim, &format!("{clock}:00"));
        end(&mut sim, clock, how);
    }
    assert_eq!(at(&mut sim, "00:41:00"), ["00:30", "00:40"]);
    let status = &sim.get(CRON_JOBS, "c")["status"];
    assert_eq!(status["lastSuccessfulTime"], "2026-01-01T00:30:40Z");
    assert!(status["active"].is_null());
}
