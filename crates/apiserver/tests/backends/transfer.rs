//! Backups, restores and moves between the backends.

use serde_json::Value;
use weft_apiserver::{Backup, Place, Registry, RegistryConfig, kinds};

use super::alike::add_one;
use super::etcd::Etcd;
use super::{Bed, block_on, map};

const NS: Option<&str> = Some("default");

fn without_version(registry: &Registry) -> (Vec<Value>, u64) {
    let (objects, rv) = registry.list(&kinds::CONFIG_MAPS, None);
    let strip = |object: &std::sync::Arc<Value>| {
        let mut object = (**object).clone();
        object["metadata"]["resourceVersion"] = Value::Null;
        object
    };
    (objects.iter().map(strip).collect(), rv)
}

/// What was there is there again; positions of before are told that they are; and all goes on.
async fn goes_on(registry: &Registry, objects: &[Value], rv: u64) -> u64 {
    let (restored, now) = without_version(registry);
    assert_eq!(restored, objects);
    assert!(now > rv, "{now} is beyond {rv}");
    assert_eq!(registry.watch(&kinds::CONFIG_MAPS, NS, rv).err().map(|e| e.code), Some(410));
    let mut watch = registry.watch(&kinds::CONFIG_MAPS, NS, now).unwrap();
    let made = add_one(registry, "m1").await.unwrap();
    let event = watch.next().await.unwrap();
    assert_eq!(event.object.parse(), made);
    assert!(event.rv > now);
    registry.list(&kinds::CONFIG_MAPS, None).1
}

/// The backup of a server that has ended; the thread that wrote may hold the file a moment longer.
async fn once_closed(place: &Place) -> Backup {
    loop {
        match Backup::of(place).await {
            Ok(backup) => return backup,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

#[test]
fn a_store_moves_from_file_to_etcd_and_back() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let bed = Bed::Redb(tempfile::tempdir().unwrap());
        let Bed::Redb(first) = &bed else { unreachable!() };
        let registry = bed.open().await;
        for n in 0..300 {
            registry.create(&kinds::CONFIG_MAPS, NS, map(&format!("m{n}"), n)).await.unwrap();
        }
        let (objects, rv) = without_version(&registry);
        let first = Place::Dir(first.path().to_owned());
        let error = Backup::of(&first).await.unwrap_err().to_string();
        assert!(error.contains("another weft apiserver uses it"), "{error}");
        drop(registry);
        let backup = once_closed(&first).await;
        let path = folder.path().join("backup");
        backup.save(&path).unwrap();
        assert!(backup.save(&path).is_err(), "a backup is never overwritten");
        let backup = Backup::load(&path).unwrap();
        assert!(backup.fill(&first).await.is_err(), "objects are never overwritten");

        let bed = Bed::Etcd(Box::new(Etcd::start()));
        let Bed::Etcd(etcd) = &bed else { unreachable!() };
        let second = Place::Etcd(etcd.config());
        backup.fill(&second).await.unwrap();
        let error = backup.fill(&second).await.unwrap_err().to_string();
        assert!(error.contains("there are objects under /weft already"), "{error}");
        let registry = bed.open().await;
        let rv = goes_on(&registry, &objects, rv).await;
        let objects = without_version(&registry).0;

        // A server on etcd may run meanwhile.
        let third = folder.path().join("data");
        Backup::of(&second).await.unwrap().fill(&Place::Dir(third.clone())).await.unwrap();
        let registry = Registry::open(&third, RegistryConfig::default()).await.unwrap();
        goes_on(&registry, &objects, rv).await;
    });
}

#[test]
fn a_restore_that_was_cut_short_is_told_and_done_again() {
    block_on(async {
        let bed = Bed::Redb(tempfile::tempdir().unwrap());
        let registry = bed.open().await;
        registry.create(&kinds::CONFIG_MAPS, NS, map("m1", 1)).await.unwrap();
        let (objects, rv) = without_version(&registry);
        drop(registry);
        let Bed::Redb(first) = &bed else { unreachable!() };
        let backup = once_closed(&Place::Dir(first.path().to_owned())).await;

        let second = tempfile::tempdir().unwrap();
        std::fs::write(second.path().join("objects.redb.part"), b"half a file").unwrap();
        backup.fill(&Place::Dir(second.path().to_owned())).await.unwrap();
        let registry = Registry::open(second.path(), RegistryConfig::default()).await.unwrap();
        goes_on(&registry, &objects, rv).await;

        let etcd = Etcd::start();
        etcd.ctl(&["put", "/weft/base", "1000000000"]).unwrap();
        etcd.ctl(&["put", "/weft/objects/core/configmaps/default/m1", &objects[0].to_string()]).unwrap();
        let told = |error: &str| error.contains("etcdctl del --prefix /weft/, and restore again");
        let place = Place::Etcd(etcd.config());
        let error = Registry::open_etcd(&etcd.config(), RegistryConfig::default()).await.err().unwrap();
        assert!(told(&error.to_string()), "{error}");
        let error = Backup::of(&place).await.unwrap_err().to_string();
        assert!(told(&error), "{error}");
        etcd.ctl(&["del", "--prefix", "/weft/"]).unwrap();
        backup.fill(&place).await.unwrap();
        goes_on(&Bed::Etcd(Box::new(etcd)).open().await, &objects, rv).await;
    });
}

#[test]
fn a_place_without_objects_is_told() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let error = Backup::of(&Place::Dir(folder.path().join("no"))).await.unwrap_err().to_string();
        assert!(error.contains("is it the right --data-dir?"), "{error}");
        assert!(!folder.path().join("no").exists());
    });
}
