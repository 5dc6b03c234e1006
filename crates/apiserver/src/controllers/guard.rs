//! A planner that panics on one object must not end all controllers: the object is told in the log, and tried
//! again later like one whose write failed.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::world::Key;

/// A planner that could not plan for an object.
#[derive(Debug, PartialEq)]
pub(super) struct Panicked {
    /// The controller's name.
    pub(super) controller: &'static str,
    pub(super) key: Key,
    /// What the panic said.
    pub(super) reason: String,
}

/// Plans for one object. The planner changes nothing that a later one relies on.
pub(super) fn one<T>(
    controller: &'static str,
    key: &Key,
    panicked: &mut Vec<Panicked>,
    plan: impl FnOnce() -> T,
) -> Option<T> {
    let plan = || {
        #[cfg(test)]
        tests::sabotage(controller, key);
        plan()
    };
    let reason = match catch_unwind(AssertUnwindSafe(plan)) {
        Ok(planned) => return Some(planned),
        Err(payload) => said(&*payload),
    };
    panicked.push(Panicked { controller, key: key.clone(), reason });
    None
}

/// Plans for objects together. Those that cannot be planned for even alone are left out; when the others
/// still cannot be planned for together, none is.
pub(super) fn together<T>(
    controller: &'static str,
    keys: &[Key],
    panicked: &mut Vec<Panicked>,
    mut plan: impl FnMut(&[Key]) -> Vec<T>,
) -> Vec<T> {
    let mut attempt = |keys: &[Key]| {
        catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            keys.iter().for_each(|key| tests::sabotage(controller, key));
            plan(keys)
        }))
        .map_err(|payload| said(&*payload))
    };
    if let Ok(planned) = attempt(keys) {
        return planned;
    }
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for key in keys {
        match attempt(std::slice::from_ref(key)) {
            Ok(_) => good.push(key.clone()),
            Err(reason) => bad.push(Panicked { controller, key: key.clone(), reason }),
        }
    }
    panicked.extend(bad);
    match attempt(&good) {
        Ok(planned) => planned,
        Err(reason) => {
            let failed = |key| Panicked { controller, key, reason: reason.clone() };
            panicked.extend(good.into_iter().map(failed));
            Vec::new()
        }
    }
}

fn said(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it said nothing".into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::super::tests::{bench, labelled};
    use super::*;
    use crate::kinds;

    /// How often each planner panics on objects of this name before it plans for them.
    const TIMES: usize = 3;
    static DONE: AtomicUsize = AtomicUsize::new(0);

    /// Panics as a planner with a mistake would.
    pub(super) fn sabotage(controller: &str, key: &Key) {
        let wanted = controller == "workloads" && &*key.name == "the-planner-panics";
        if wanted && DONE.fetch_add(1, Ordering::Relaxed) < TIMES {
            panic!("a mistake of the test");
        }
    }

    fn keys(names: &[&str]) -> Vec<Key> {
        names.iter().map(|name| Key::new("pods", "default", name)).collect()
    }

    #[test]
    fn what_panics_alone_is_left_out_and_the_others_are_planned_together() {
        let all = keys(&["a", "bad", "c"]);
        let mut panicked = Vec::new();
        let plan = |keys: &[Key]| {
            assert!(!keys.iter().any(|key| &*key.name == "bad"), "bad is bad");
            keys.iter().map(|key| (key.name.to_string(), keys.len())).collect()
        };
        let planned = together("c", &all, &mut panicked, plan);
        assert_eq!(planned, [("a".to_owned(), 2), ("c".to_owned(), 2)]);
        let told = Panicked { controller: "c", key: all[1].clone(), reason: "bad is bad".into() };
        assert_eq!(panicked, [told]);
    }

    #[test]
    fn what_panics_only_together_is_not_planned() {
        let mut panicked = Vec::new();
        let plan = |keys: &[Key]| -> Vec<()> {
            assert!(keys.len() < 2);
            vec![()]
        };
        assert!(together("c", &keys(&["a", "b"]), &mut panicked, plan).is_empty());
        assert_eq!(panicked.len(), 2);
        assert_eq!(one("c", &keys(&["a"])[0], &mut panicked, || 1), Some(1));
        assert_eq!(one("c", &keys(&["a"])[0], &mut panicked, || -> u8 { panic!("{}", "no") }), None);
        assert_eq!(panicked[2].reason, "no");
    }

    #[tokio::test]
    async fn a_planner_that_panics_on_one_object_harms_no_other_and_tries_again() {
        let bench = bench(1).await;
        let one = labelled(&json!({"replicas": 1}));
        bench.create(&kinds::DEPLOYMENTS, "the-planner-panics", one.clone()).await;
        bench.create(&kinds::STATEFUL_SETS, "db", one).await;
        bench.until("the pods of both", |b| b.bound() == 2).await;
        assert!(DONE.load(Ordering::Relaxed) > TIMES);
    }
}
