//! The allocation directory on real file systems: what is refused changes nothing, what dies is
//! given back, and the reference plugin's files are understood.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of a test may fail it")]

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Mutex;

use proptest::prelude::*;
use weft_ipam::host_local::{Attachment, Error, Store};
use weft_ipam::range::{Pool, RangeSpec};

fn pool(subnets: &[&str]) -> Pool {
    let spec = |subnet: &&str| vec![RangeSpec { subnet: (*subnet).into(), ..RangeSpec::default() }];
    Pool::new(&subnets.iter().map(spec).collect::<Vec<_>>()).unwrap()
}

fn eth0(container_id: &str) -> Attachment<'_> {
    Attachment { container_id, ifname: "eth0" }
}

fn no_link(_: &str) -> bool {
    false
}

/// A finished ADD; the addresses.
fn add(store: &Store, container_id: &str, pool: &Pool) -> Result<Vec<String>, Error> {
    let reservation = store.reserve(eth0(container_id), pool, &[], &no_link)?;
    let given = reservation.assignments().iter().map(|a| a.address.addr().to_string()).collect();
    reservation.commit()?;
    Ok(given)
}

/// The address files, with their content.
fn files(dir: &Path) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_str().unwrap().parse::<IpAddr>().is_ok())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
        .collect();
    found.sort();
    found
}

fn records(dir: &Path, folder: &str) -> usize {
    fs::read_dir(dir.join(".weft").join(folder)).unwrap().count()
}

#[test]
fn both_families_go_round_robin_in_the_references_format() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path(), "net").unwrap();
    let pool = pool(&["10.9.0.0/29", "fd00:9::/64"]);
    assert_eq!(add(&store, "a", &pool).unwrap(), ["10.9.0.2", "fd00:9::2"]);
    assert_eq!(add(&store, "b", &pool).unwrap(), ["10.9.0.3", "fd00:9::3"]);
    let dir = temp.path().join("net");
    assert_eq!(files(&dir)[0], ("10.9.0.2".into(), "a\r\neth0".into()));
    assert_eq!(fs::read_to_string(dir.join("last_reserved_ip.1")).unwrap(), "fd00:9::3");
    assert_eq!(store.release(eth0("a"), Some(&pool)).unwrap().len(), 2);
    assert_eq!(add(&store, "c", &pool).unwrap(), ["10.9.0.4", "fd00:9::4"], "a freed address rests");
    assert_eq!(store.held(eth0("c")).unwrap().len(), 2);
}

#[test]
fn f4_a_duplicate_add_is_refused_and_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path(), "net").unwrap();
    let pool = pool(&["10.9.0.0/29"]);
    add(&store, "a", &pool).unwrap();
    let before = files(&temp.path().join("net"));
    let error = add(&store, "a", &pool).unwrap_err();
    assert!(error.to_string().contains("eth0 of container a has 10.9.0.2 already"), "{error}");
    assert_eq!(files(&temp.path().join("net")), before);
    assert_eq!(fs::read_to_string(temp.path().join("net/last_reserved_ip.0")).unwrap(), "10.9.0.2");
    let again = Attachment { container_id: "a", ifname: "eth1" };
    store.reserve(again, &pool, &[], &no_link).unwrap().commit().unwrap();
}

#[test]
fn f4_a_duplicate_of_what_the_reference_added_is_refused_too() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path(), "net").unwrap();
    let pool = pool(&["10.9.0.0/24"]);
    add(&store, "a", &pool).unwrap();
    let dir = temp.path().join("net");
    fs::write(dir.join("10.9.0.77"), "theirs\r\neth0").unwrap();
    fs::write(dir.join("last_reserved_ip.0"), "10.9.0.77").unwrap();
    assert_eq!(add(&store, "b", &pool).unwrap(), ["10.9.0.78"]);
    assert!(matches!(add(&store, "theirs", &pool), Err(Error::Duplicate { .. })));
    assert_eq!(store.release(eth0("theirs"), Some(&pool)).unwrap().len(), 1);
    fs::remove_file(dir.join("10.9.0.78")).unwrap();
    assert_eq!(add(&store, "b", &pool).unwrap(), ["10.9.0.79"], "the reference's DEL is seen");
}

#[test]
fn what_the_reference_gave_after_a_killed_add_is_freed_with_it() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path(), "net").unwrap();
    let pool = pool(&["10.9.0.0/29"]);
    drop(store.reserve(eth0("a"), &pool, &[], &no_link).unwrap());
    let dir = temp.path().join("net");
    fs::write(dir.join("10.9.0.4"), "a\r\neth0").unwrap();
    fs::write(dir.join("last_reserved_ip.0"), "10.9.0.4").unwrap();
    // The link of the killed one is still there, so its intent is.
    store.reserve(eth0("b"), &pool, &[], &|_| true).unwrap().commit().unwrap();
    assert_eq!(store.release(eth0("a"), Some(&pool)).unwrap().len(), 2);
    assert!(store.held(eth0("a")).unwrap().is_empty());
}

#[test]
fn f5_release_without_reservation_twice_and_of_a_missing_network_succeeds() {
    let temp = tempfile::tempdir().unwrap();
    assert!(Store::open_existing(temp.path(), "none").unwrap().is_none());
    let store = Store::open(temp.path(), "net").unwrap();
    let pool = pool(&["10.9.0.0/29"]);
    assert!(store.release(eth0("never"), Some(&pool)).unwrap().is_empty());
    add(&store, "a", &pool).unwrap();
    assert_eq!(store.release(eth0("a"), None).unwrap().len(), 1);
    assert!(store.release(eth0("a"), Some(&pool)).unwrap().is_empty());
}

#[test]
fn f6_a_stale_release_frees_only_its_own() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path(), "net").unwrap();
    let pool = pool(&["10.9.0.0/30"]);
    add(&store, "old", &pool).unwrap();
    store.release(eth0("old"), Some(&pool)).unwrap();
    assert_eq!(add(&store, "new", &pool).unwrap(), ["10.9.0.2"]);
    assert!(store.release(eth0("old"), Some(&pool)).unwrap().is_empty());
    assert!(store.release(eth0("old"), None).unwrap().is_empty());
    assert_eq!(files(&temp.path().join("net")).len(), 1);
}

#[test]
fn f15_exhaustion_names_range_and_counts_and_ends_with_one_release() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path(), "net").unwrap();
    let pool = pool(&["10.9.0.0/24"]);
    for pod in 0..253 {
        add(&store, &format!("p{pod}"), &pool).unwrap();
    }
    let error = add(&store, "more", &pool).unwrap_err().to_string();
    assert!(error.contains("10.9.0.1-10.9.0.254: 253 of 253 are taken"), "{error}");
    assert_eq!(records(&temp.path().join("net"), "intent"), 0);
    assert!(store.exhausted(&pool).unwrap().is_some());
    store.release(eth0("p100"), Some(&pool)).unwrap();
    assert_eq!(add(&store, "more", &pool).unwrap(), ["10.9.0.102"]);
    store.release(eth0("more"), Some(&pool)).unwrap();
    assert!(store.exhausted(&pool).unwrap().is_none());
}

#[test]
fn f3_an_unfinished_add_is_reclaimed_once_process_and_link_are_gone() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path(), "net").unwrap();
    let pool = pool(&["10.9.0.0/29"]);
    let alive = store.reserve(eth0("alive"), &pool, &[], &no_link).unwrap();
    drop(store.reserve(eth0("dead"), &pool, &[], &no_link).unwrap());
    assert_eq!(files(&temp.path().join("net")).len(), 2);
    let linked = eth0("dead").key();
    store.reserve(eth0("b"), &pool, &[], &|key| key == linked).unwrap().commit().unwrap();
    assert_eq!(files(&temp.path().join("net")).len(), 3, "its link is there: it stays");
    assert!(matches!(store.reserve(eth0("dead"), &pool, &[], &|_| true), Err(Error::Duplicate { .. })));
    add(&store, "c", &pool).unwrap();
    let left: Vec<String> = files(&temp.path().join("net")).into_iter().map(|(_, owner)| owner).collect();
    assert_eq!(left, ["alive\r\neth0", "b\r\neth0", "c\r\neth0"]);
    alive.commit().unwrap();
    assert_eq!(records(&temp.path().join("net"), "intent"), 0);
}

#[test]
fn f11_empty_files_are_reclaimed_and_garbage_is_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path(), "net").unwrap();
    let dir = temp.path().join("net");
    fs::write(dir.join("10.9.0.2"), "").unwrap();
    fs::write(dir.join("10.9.0.3"), [0xff, 0x00, 0x80]).unwrap();
    fs::create_dir(dir.join("10.9.0.4")).unwrap();
    fs::write(dir.join("last_reserved_ip.0"), "rubbish").unwrap();
    let pool = pool(&["10.9.0.0/29"]);
    assert_eq!(add(&store, "a", &pool).unwrap(), ["10.9.0.2"]);
    assert_eq!(add(&store, "b", &pool).unwrap(), ["10.9.0.5"]);
    assert_eq!(store.release(eth0("a"), None).unwrap().len(), 1);
}

#[test]
fn f13_another_boot_voids_all_and_the_first_run_voids_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("net");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("10.9.0.9"), "theirs\r\neth0").unwrap();
    let store = Store::open(temp.path(), "net").unwrap();
    let pool = pool(&["10.9.0.0/28"]);
    add(&store, "ours", &pool).unwrap();
    assert_eq!(files(&dir).len(), 2, "no record of a boot: taken over as it is");
    fs::write(dir.join("10.9.0.10"), "since boot\r\neth0").unwrap();
    fs::write(dir.join("last_reserved_ip.0"), "10.9.0.10").unwrap();
    let old = fs::File::open(dir.join("10.9.0.9")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::remove_file(dir.join(".weft/id").join(eth0("theirs").key())).ok();
    fs::remove_file(dir.join(".weft/boot")).unwrap();
    symlink("00000000-0000-0000-0000-000000000000", dir.join(".weft/boot")).unwrap();
    add(&store, "new", &pool).unwrap();
    let left: Vec<String> = files(&dir).into_iter().map(|(_, owner)| owner).collect();
    assert_eq!(left, ["since boot\r\neth0", "new\r\neth0"]);
    assert_eq!(records(&dir, "id"), 2);
}

#[test]
fn a_del_during_an_add_is_noticed() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path(), "net").unwrap();
    let pool = pool(&["10.9.0.0/28"]);
    let unfinished = store.reserve(eth0("a"), &pool, &[], &no_link).unwrap();
    assert!(unfinished.is_held());
    store.release(eth0("a"), Some(&pool)).unwrap();
    assert!(!unfinished.is_held());
    assert!(unfinished.commit().is_err());
}

#[test]
fn f14_retain_frees_what_is_not_kept() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path(), "net").unwrap();
    let pool = pool(&["10.9.0.0/28"]);
    add(&store, "a", &pool).unwrap();
    add(&store, "b", &pool).unwrap();
    let _unfinished = store.reserve(eth0("c"), &pool, &[], &no_link).unwrap();
    let freed = store.retain(&|id, ifname| id == "a" && ifname == "eth0").unwrap();
    assert_eq!(freed, [(eth0("b").key(), "10.9.0.3".parse::<IpAddr>().unwrap())]);
    assert_eq!(files(&temp.path().join("net")).len(), 2);
}

#[test]
fn a_requested_address_is_given_or_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path(), "net").unwrap();
    let pool = pool(&["10.9.0.0/28", "fd00::/64"]);
    let wanted: IpAddr = "10.9.0.7".parse().unwrap();
    let got = store.reserve(eth0("a"), &pool, &[wanted], &no_link).unwrap();
    assert_eq!(got.assignments()[0].address.to_string(), "10.9.0.7/28");
    got.commit().unwrap();
    let taken = store.reserve(eth0("b"), &pool, &[wanted], &no_link).unwrap_err().to_string();
    assert!(taken.contains("10.9.0.7 is taken"), "{taken}");
    for stray in ["192.0.2.1", "10.9.0.1", "10.9.0.15"] {
        let error = store.reserve(eth0("b"), &pool, &[stray.parse().unwrap()], &no_link).unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    }
    assert_eq!(files(&temp.path().join("net")).len(), 2);
}

#[test]
fn adds_at_once_never_share_an_address() {
    let temp = tempfile::tempdir().unwrap();
    let pool = pool(&["10.9.0.0/24"]);
    let given = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (pool, given, path) = (&pool, &given, temp.path());
            scope.spawn(move || {
                let store = Store::open(path, "net").unwrap();
                for pod in 0..20 {
                    let ip = add(&store, &format!("w{worker}-{pod}"), pool).unwrap();
                    given.lock().unwrap().extend(ip);
                }
            });
        }
    });
    let mut given = given.into_inner().unwrap();
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 160);
}

#[derive(Clone, Debug)]
enum Step {
    Add(u8),
    Die(u8),
    Release(u8),
    TheirAdd(u8, u8),
    TheirRelease(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u8..12).prop_map(Step::Add),
        1 => (0u8..12).prop_map(Step::Die),
        2 => (0u8..12).prop_map(Step::Release),
        1 => (0u8..12, 2u8..15).prop_map(|(id, at)| Step::TheirAdd(id, at)),
        1 => (0u8..12).prop_map(Step::TheirRelease),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever both programs do in turn, each container holds at most one address and exactly
    /// what the model says it holds.
    #[test]
    fn the_directory_agrees_with_a_model_while_two_programs_share_it(steps in steps()) {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path(), "net").unwrap();
        let dir = temp.path().join("net");
        let pool = pool(&["10.9.0.0/28"]);
        let mut model = std::collections::BTreeMap::<u8, bool>::new();
        for step in steps {
            match step {
                Step::Add(id) => {
                    model.retain(|_, finished| *finished);
                    match add(&store, &id.to_string(), &pool) {
                        Ok(_) => prop_assert!(model.insert(id, true).is_none()),
                        Err(Error::Duplicate { .. }) => prop_assert!(model.contains_key(&id)),
                        Err(Error::Exhausted { .. }) => prop_assert!(model.len() == 13),
                        Err(other) => prop_assert!(false, "{other}"),
                    }
                }
                Step::Die(id) => {
                    model.retain(|_, finished| *finished);
                    if store.reserve(eth0(&id.to_string()), &pool, &[], &no_link).is_ok() {
                        prop_assert!(model.insert(id, false).is_none());
                    }
                }
                Step::Release(id) => {
                    let freed = store.release(eth0(&id.to_string()), Some(&pool)).unwrap();
                    prop_assert_eq!(freed.len(), usize::from(model.remove(&id).is_some()));
                }
                Step::TheirAdd(id, at) => {
                    let file = dir.join(format!("10.9.0.{at}"));
                    if !model.contains_key(&id) && !file.exists() {
                        fs::write(file, format!("{id}\r\neth0")).unwrap();
                        fs::write(dir.join("last_reserved_ip.0"), format!("10.9.0.{at}")).unwrap();
                        model.insert(id, true);
                    }
                }
                Step::TheirRelease(id) => {
                    for (name, owner) in files(&dir) {
                        if owner == format!("{id}\r\neth0") {
                            fs::remove_file(dir.join(name)).unwrap();
                            model.remove(&id);
                        }
                    }
                }
            }
            prop_assert_eq!(files(&dir).len(), model.len());
        }
    }
}
