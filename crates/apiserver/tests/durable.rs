//! What was acknowledged is on the disk: after kill -9, and when the disk is full.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_apiserver::{Part, Patch, Registry, RegistryConfig, kinds};

/// The role and the directory of a process that this test starts.
const ROLE: &str = "WEFT_TEST_ROLE";
const DIR: &str = "WEFT_TEST_DIR";
/// How often the writer is killed; `WEFT_KILLS=1000` for the long form.
const KILLS: &str = "WEFT_KILLS";
const ROUNDS: u64 = 50;
const WRITERS: usize = 8;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Opens a directory. The writer's thread of an earlier handle may hold the file a moment longer.
async fn open(dir: &Path) -> Registry {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match Registry::open(dir, RegistryConfig::default()).await {
            Ok(registry) => return registry,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

fn map(name: &str, n: u64) -> Value {
    // Two fields that must always agree, apart by some bytes.
    json!({"metadata": {"name": name}, "data": {"a": n.to_string(), "fill": "x".repeat(2000), "z": n.to_string()}})
}

fn start(role: &str, test: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(ROLE, role)
        .env(DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn role() -> Option<(String, PathBuf)> {
    Some((std::env::var(ROLE).ok()?, PathBuf::from(std::env::var_os(DIR)?)))
}

/// Writes as fast as it can until it is killed, and says each write after it was acknowledged.
async fn write_for_ever(dir: &Path) {
    let registry = open(dir).await;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let registry = registry.clone();
        tasks.spawn(async move {
            let name = format!("w{writer}");
            let known = registry.get(&kinds::CONFIG_MAPS, Some("default"), &name).await;
            let mut n: u64 = known.map_or(0, |o| o["data"]["a"].as_str().unwrap().parse().unwrap());
            loop {
                n += 1;
                let object = map(&name, n);
                if registry.update(&kinds::CONFIG_MAPS, Some("default"), object.clone()).await.is_err() {
                    registry.create(&kinds::CONFIG_MAPS, Some("default"), object).await.unwrap();
                }
                let mut out = std::io::stdout().lock();
                writeln!(out, "ack {name} {n}").unwrap();
                out.flush().unwrap();
            }
        });
    }
    tasks.join_next().await;
}

#[test]
fn every_acknowledged_write_survives_kill_9() {
    if let Some((_, dir)) = role() {
        return block_on(write_for_ever(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    let mut mirror = Mirror::default();
    let rounds = std::env::var(KILLS).map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        let mut child = start("writer", "every_acknowledged_write_survives_kill_9", dir.path());
        // Another number of writes each round, so that the kill meets another moment.
        let writes = 1 + round * 37 % 211;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < writes {
            let line = lines.next().expect("the writer runs").unwrap();
            seen += u64::from(note(&line, &mut acknowledged));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What was said before the kill counts too.
        lines.map_while(Result::ok).for_each(|line| {
            note(&line, &mut acknowledged);
        });
        block_on(verify(dir.path(), &acknowledged, &mut mirror));
    }
    println!("{rounds} kills, {} events, no gap", mirror.events);
}

/// A client that watches on after each kill from where it was.
#[derive(Default)]
struct Mirror {
    objects: BTreeMap<String, Value>,
    rv: u64,
    events: u64,
}

impl Mirror {
    fn resume(&mut self, registry: &Registry) {
        let (objects, rv) = registry.list(&kinds::CONFIG_MAPS, None);
        assert!(rv >= self.rv, "resourceVersions never go back");
        let mut watch = registry.watch(&kinds::CONFIG_MAPS, None, self.rv).expect("the history is there");
        while let Some(event) = watch.try_next().unwrap() {
            let object = (*event.object.parse()).clone();
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            let known = self.objects.insert(name, object);
            assert_eq!(known, event.previous.as_ref().map(|o| (*o.parse()).clone()), "a gap");
            self.events += 1;
        }
        let listed: Vec<Value> = objects.iter().map(|o| (**o).clone()).collect();
        assert_eq!(self.objects.values().cloned().collect::<Vec<_>>(), listed);
        self.rv = rv;
    }
}

fn note(line: &str, acknowledged: &mut BTreeMap<String, u64>) -> bool {
    let parts: Vec<&str> = line.split(' ').collect();
    let ["ack", name, n] = parts.as_slice() else { return false };
    // The last line may be cut by the kill.
    let Ok(n) = n.parse() else { return false };
    acknowledged.insert((*name).to_owned(), n);
    true
}

async fn verify(dir: &Path, acknowledged: &BTreeMap<String, u64>, mirror: &mut Mirror) {
    let registry = open(dir).await;
    for (name, least) in acknowledged {
        let object = registry.get(&kinds::CONFIG_MAPS, Some("default"), name).await.unwrap();
        let n: u64 = object["data"]["a"].as_str().unwrap().parse().unwrap();
        assert!(n >= *least, "{name}: {least} was acknowledged, {n} is there");
        assert_eq!(object["data"]["a"], object["data"]["z"], "{name} is half there");
    }
    mirror.resume(&registry);
}

#[test]
fn a_file_that_cannot_be_used_is_told_in_one_line() {
    let refused = |dir: &Path| {
        let error = block_on(Registry::open(dir, RegistryConfig::default())).err().expect("refused");
        let text = error.to_string();
        let path = dir.join("objects.redb");
        assert!(text.contains(path.to_str().unwrap()) && !text.contains('\n'), "{text}");
        text
    };
    let damaged = |bytes: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("objects.redb"), bytes).unwrap();
        let text = refused(dir.path());
        assert!(text.contains("weft apiserver restore"), "{} bytes: {text}", bytes.len());
    };
    let dir = tempfile::tempdir().unwrap();
    let registry = block_on(open(dir.path()));
    for n in 0..200 {
        block_on(registry.create(&kinds::CONFIG_MAPS, Some("default"), map(&format!("m{n}"), n))).unwrap();
    }
    assert!(refused(dir.path()).contains("another weft apiserver uses it; stop that one first"));
    drop(registry);
    // Open again means that the last writer's thread has closed it.
    drop(block_on(open(dir.path())));
    let whole = std::fs::read(dir.path().join("objects.redb")).unwrap();
    for length in [1, 100, 4096, whole.len() / 2, whole.len() - 1] {
        damaged(&whole[..length]);
    }
    // The database's own version, in both of its headers.
    for version in [1, 9] {
        let mut other = whole.clone();
        (other[64], other[192]) = (version, version);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("objects.redb"), other).unwrap();
        let text = refused(dir.path());
        assert!(text.contains("version"), "{text}");
    }
    // Ours.
    {
        let table: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
        let db = redb::Database::open(dir.path().join("objects.redb")).unwrap();
        let txn = db.begin_write().unwrap();
        txn.open_table(table).unwrap().insert("format", 9).unwrap();
        txn.commit().unwrap();
    }
    let text = refused(dir.path());
    assert!(text.contains("its layout has version 9 and this program knows 2"), "{text}");
    damaged("this is another file, of a hundred bytes and more. ".repeat(100).as_bytes());
}

/// In a mount namespace of its own with a small tmpfs on `dir`.
async fn fill(dir: &Path) {
    let registry = open(dir).await;
    let ns = Some("default");
    registry.create(&kinds::CONFIG_MAPS, ns, map("first", 1)).await.unwrap();
    let ballast = dir.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[0; 65536]).is_ok() {}
    let mut kept = 0;
    let error = loop {
        let name = format!("m{kept}");
        match registry.create(&kinds::CONFIG_MAPS, ns, map(&name, 1)).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 10_000, "the disk never fills");
    };
    assert_eq!((error.code, &*error.reason), (507, "InsufficientStorage"));
    assert!(error.message.contains(dir.to_str().unwrap()), "{error}");
    assert_eq!(registry.list(&kinds::CONFIG_MAPS, ns).0.len(), kept + 1, "reads still work");
    let refused = registry
        .patch(&kinds::CONFIG_MAPS, ns, "first", Part::Whole, Patch::Merge(json!({"data": {"a": "2"}})))
        .await;
    assert_eq!(refused.unwrap_err().code, 507);
    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    registry.create(&kinds::CONFIG_MAPS, ns, map("after", 1)).await.unwrap();
    drop(registry);
    let again = open(dir).await;
    assert_eq!(again.list(&kinds::CONFIG_MAPS, ns).0.len(), kept + 2);
    println!("full disk: {kept} kept");
}

#[test]
fn a_full_disk_refuses_writes_and_recovers() {
    if let Some((_, dir)) = role() {
        return block_on(fill(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    let script = "mount -t tmpfs -o size=4m tmpfs \"$WEFT_TEST_DIR\" && exec \"$0\" --exact a_full_disk_refuses_writes_and_recovers --nocapture";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(exe)
        .env(ROLE, "full")
        .env(DIR, dir.path())
        .output()
        .expect("unshare (util-linux) and root are needed");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("full disk:"), "{text}{errors}");
}
