use proptest::prelude::*;
use serde_json::json;
use weft_model::{Pod, PodKey};

use super::*;

fn raw(value: serde_json::Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(&value).unwrap()
}

fn pod(name: &str, version: u64) -> Box<RawValue> {
    raw(
        json!({"metadata": {"name": name, "namespace": "default", "uid": "u", "resourceVersion": version.to_string(),
        "labels": {"at": version.to_string()}}}),
    )
}

fn page(items: Vec<Box<RawValue>>, version: &str, token: Option<&str>) -> Page {
    Page { items, resource_version: version.to_owned(), token: token.map(str::to_owned) }
}

fn event(kind: EventKind, object: Box<RawValue>) -> Event {
    Event { kind, object }
}

fn listed(pods: &[(&str, u64)]) -> Reflector<Pod> {
    let mut reflector = Reflector::new(OrdMap::new());
    reflector.handle_page(page(pods.iter().map(|(name, version)| pod(name, *version)).collect(), "10", None));
    reflector
}

fn names(reflector: &Reflector<Pod>) -> Vec<String> {
    reflector.objects().keys().map(|key| key.name.to_string()).collect()
}

fn refused(code: u16) -> Error {
    Error::refusal("GET /x", code, b"", None)
}

#[test]
fn pages_are_applied_with_the_last_one() {
    let mut reflector = listed(&[("a", 1), ("b", 2)]);
    reflector.handle_error(&refused(410), 0.0);
    assert_eq!(reflector.request(), Ask::Page { token: None, whole: false });
    assert!(reflector.handle_page(page(vec![pod("a", 1)], "20", Some("t"))).is_empty());
    assert_eq!(reflector.request(), Ask::Page { token: Some("t".into()), whole: false });
    reflector.handle_error(&refused(503), 0.0);
    assert_eq!(names(&reflector), ["a", "b"], "the old state serves");
    assert_eq!(reflector.request(), Ask::Page { token: Some("t".into()), whole: false }, "from where it was");
    let changed = reflector.handle_page(page(vec![pod("c", 15)], "20", None));
    assert_eq!(changed.iter().map(|key| key.name.as_ref()).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(reflector.request(), Ask::Watch { version: "20".into() });
}

#[test]
fn pages_of_two_versions_are_not_mixed() {
    let mut reflector = listed(&[]);
    reflector.handle_error(&refused(410), 0.0);
    reflector.handle_page(page(vec![pod("a", 1)], "20", Some("t")));
    reflector.handle_page(page(vec![pod("b", 1)], "21", None));
    assert!(names(&reflector).is_empty());
    assert_eq!(reflector.request(), Ask::Page { token: None, whole: true });
}

#[test]
fn an_object_that_turns_into_nonsense_stays_as_it_was() {
    let mut reflector = listed(&[("a", 1)]);
    let bad = || {
        raw(
            json!({"metadata": {"name": "a", "namespace": "default", "resourceVersion": "12"}, "status": {"podIP": "x"}}),
        )
    };
    assert_eq!(reflector.handle_event(&event(EventKind::Modified, bad()), 0.0), Ok(None));
    reflector.handle_error(&refused(410), 0.0);
    assert!(reflector.handle_page(page(vec![bad(), raw(json!({"metadata": 7}))], "20", None)).is_empty());
    assert_eq!(names(&reflector), ["a"]);
}

#[test]
fn the_wait_doubles_to_its_cap_and_a_good_answer_resets_it() {
    let mut reflector = listed(&[]);
    let away = Error::Unreachable { request: String::new(), reason: String::new() };
    let waits: Vec<_> = (0..12).map(|_| reflector.handle_error(&away, 1.0)).collect();
    assert_eq!(waits[0], Duration::from_millis(200));
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
    assert_eq!(waits.last(), Some(&BACKOFF_CAP));
    assert_eq!(reflector.handle_error(&away, 0.0), BACKOFF_CAP / 2, "half of it is random");
    assert!(matches!(reflector.request(), Ask::Watch { .. }), "no list for a lost connection");
    reflector
        .handle_event(&event(EventKind::Bookmark, raw(json!({"metadata": {"resourceVersion": "30"}}))), 0.0)
        .unwrap();
    assert_eq!(reflector.request(), Ask::Watch { version: "30".into() });
    assert!(reflector.handle_error(&away, 1.0) < Duration::from_secs(1));
}

#[test]
fn a_server_restored_from_an_old_backup_is_listed_again() {
    let mut reflector = listed(&[("a", 1)]);
    for _ in 0..5 {
        reflector.handle_error(&refused(504), 0.0);
    }
    assert!(matches!(reflector.request(), Ask::Page { .. }));
    reflector.handle_page(page(vec![pod("a", 1)], "2", None));
    let changed = reflector.handle_event(&event(EventKind::Modified, pod("a", 3)), 0.0);
    assert_eq!(changed, Ok(Some(PodKey::new("default", "a"))), "its lower versions count");
}

#[test]
fn a_watch_that_ends_at_once_again_and_again_is_a_failure() {
    let mut reflector = listed(&[]);
    assert_eq!(reflector.handle_end(Duration::from_secs(25), true, 1.0), Duration::ZERO);
    let waits: Vec<_> = (0..3).map(|_| reflector.handle_end(Duration::ZERO, true, 1.0)).collect();
    assert!(waits[0] > Duration::ZERO && waits[2] > waits[0]);
}

/// About 1 KiB for a remote pod: what it holds, with what each allocation costs besides.
#[test]
fn a_remote_pod_costs_about_a_kibibyte() {
    let json = r#"{"metadata":{"name":"checkout-6f7d9c5b8-x2x4q","namespace":"online-boutique","uid":"7a1b7a52-6c0e-4a38-9a26-5a0b8f1f7a55",
        "labels":{"app":"checkout","app.kubernetes.io/part-of":"boutique","pod-template-hash":"6f7d9c5b8"}},
        "spec":{"nodeName":"node-17"},"status":{"podIPs":[{"ip":"10.244.17.9"},{"ip":"fd00:17::9"}]}}"#;
    let pod = Pod::decode(&decode::meta(json).unwrap(), json).unwrap();
    // malloc's header and rounding; an Arc has two counters.
    let allocated = |bytes: usize| (bytes + 8).next_multiple_of(16);
    let text = |text: &str| allocated(text.len() + 16);
    let labels: usize = pod.labels.iter().map(|(key, value)| text(key) + text(value)).sum();
    // A leaf of std's B-tree has room for eleven pairs.
    let tree = allocated(11 * 2 * size_of::<Arc<str>>() + 16);
    let strings =
        text(&pod.name) + text(&pod.namespace) + text(&pod.uid) + text(pod.node.as_deref().unwrap());
    let ips = allocated(pod.ips.capacity() * size_of::<std::net::IpAddr>());
    let own = allocated(size_of::<Pod>() + 16) + strings + labels + tree + ips;
    // The key in the map of objects and in that of versions (at most half empty); they share its strings.
    let places = 2 * size_of::<(PodKey, Arc<Pod>)>() + 2 * size_of::<(PodKey, u64)>();
    assert!(own + places <= 1280, "{own} + {places}");
}

#[derive(Clone, Debug)]
struct Step {
    name: usize,
    deleted: bool,
}

proptest! {
    /// Any order of events, each delivered once or more, ends in the same cluster.
    #[test]
    fn order_and_repetition_do_not_matter(
        steps in prop::collection::vec((0..5usize, any::<bool>()).prop_map(|(name, deleted)| Step { name, deleted }), 1..30),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let all: Vec<Event> = steps.iter().zip(11..).map(|(step, version)| {
            let kind = if step.deleted { EventKind::Deleted } else { EventKind::Modified };
            event(kind, pod(&format!("p{}", step.name), version))
        }).collect();
        let base = [("p0", 1), ("p1", 2)];
        let mut straight = listed(&base);
        for event in &all {
            straight.handle_event(event, 0.0).unwrap();
        }
        let mut mixed = listed(&base);
        for index in &order {
            mixed.handle_event(index.get(&all), 0.0).unwrap();
        }
        for event in all.iter().rev() {
            mixed.handle_event(event, 0.0).unwrap();
        }
        prop_assert_eq!(straight.objects(), mixed.objects());
        // A list of the same state changes nothing.
        let items: Vec<_> = straight.objects().values()
            .map(|p| pod(&p.name, p.labels["at"].parse().unwrap())).collect();
        mixed.handle_error(&refused(410), 0.0);
        prop_assert!(mixed.handle_page(page(items, "99", None)).is_empty());
    }

    /// The changed keys are exactly those that differ.
    #[test]
    fn a_list_names_exactly_what_differs(
        old in prop::collection::btree_map(0..20u8, 1..4u64, 0..20),
        new in prop::collection::btree_map(0..20u8, 1..4u64, 0..20),
    ) {
        let items = |pods: &std::collections::BTreeMap<u8, u64>| pods.iter().map(|(n, v)| pod(&format!("p{n:02}"), *v)).collect();
        let mut reflector = Reflector::<Pod>::new(OrdMap::new());
        reflector.handle_page(page(items(&old), "10", None));
        reflector.handle_error(&refused(410), 0.0);
        let changed = reflector.handle_page(page(items(&new), "20", None));
        let expected: BTreeSet<PodKey> = (0..20).filter(|n| old.get(n) != new.get(n))
            .map(|n| PodKey::new("default", format!("p{n:02}"))).collect();
        prop_assert_eq!(changed, expected);
    }
}
