//! What both backends must do alike, and what etcd adds: several servers over one store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod alike;
#[path = "../common/mod.rs"]
mod common;
mod etcd;
mod flannel;
mod leader;
mod mirror;
mod operators;
mod pki;
mod served;
mod shared;
mod transfer;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_apiserver::{Registry, RegistryConfig};

use etcd::Etcd;

/// A store that outlives its servers.
pub(crate) enum Bed {
    Redb(tempfile::TempDir),
    Etcd(Box<Etcd>),
}

impl Bed {
    pub(crate) async fn open(&self) -> Registry {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let opened = match self {
                Bed::Redb(dir) => {
                    let dir: PathBuf = dir.path().to_owned();
                    Registry::open(&dir, RegistryConfig::default()).await
                }
                Bed::Etcd(etcd) => Registry::open_etcd(&etcd.config(), RegistryConfig::default()).await,
            };
            match opened {
                Ok(registry) => return registry,
                // The writer's thread of an earlier server may hold the file a moment longer.
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    }
}

/// Runs a test; one that waits in vain fails.
pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let patience = Duration::from_secs(240);
    runtime.block_on(async { tokio::time::timeout(patience, test).await.expect("the test ends") })
}

pub(crate) fn map(name: &str, n: u64) -> Value {
    json!({"metadata": {"name": name, "labels": {"n": n.to_string()}}, "data": {"n": n.to_string()}})
}

/// Runs each of the listed tests on a new store of either backend.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod redb {
            $(#[test]
            fn $name() {
                let bed = super::Bed::Redb(tempfile::tempdir().unwrap());
                super::block_on(super::alike::$name(&bed));
            })*
        }
        mod on_etcd {
            $(#[test]
            fn $name() {
                let bed = super::Bed::Etcd(Box::new(super::Etcd::start()));
                super::block_on(super::alike::$name(&bed));
            })*
        }
    };
}

on_both! {
    a_stale_update_conflicts
    no_change_is_lost_between_concurrent_writers
    a_name_is_taken_once
    watches_see_everything_in_order
    a_restarted_server_goes_on_where_it_was
    positions_outside_the_history_expire
    a_write_is_seen_by_the_next_read
    what_is_too_large_or_too_deep_is_refused
    a_write_that_panics_harms_no_other
}
