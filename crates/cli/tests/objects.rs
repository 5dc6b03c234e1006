//! `weft apiserver backup|restore|copy`, as an operator runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_store::Api;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn weft() -> Command {
    Command::new(env!("CARGO_BIN_EXE_weft"))
}

/// Runs `weft apiserver` to its end; its exit code and what it printed.
fn run(args: &[&str]) -> (Option<i32>, String) {
    let output = weft().arg("apiserver").args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// A server on a data directory, as a process of its own.
struct Served(Child);

impl Served {
    fn start(dir: &Path) -> (Self, Api) {
        let address = ["--listen", "127.0.0.1:0", "--controllers", "false"];
        let mut command = weft();
        command.args(["apiserver", "--data-dir"]).arg(dir).args(address).stderr(Stdio::null());
        let served = Self(command.spawn().unwrap());
        let config = dir.join("admin.kubeconfig");
        let end = Instant::now() + Duration::from_secs(30);
        let api = loop {
            if let Ok(api) = wait(Api::from_kubeconfig(&config))
                && wait(api.list(MAPS)).is_ok()
            {
                break api;
            }
            assert!(Instant::now() < end, "the server answers");
        };
        (served, api)
    }

    fn stop(mut self) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| runtime.block_on(future))
}

fn objects(api: &Api) -> Value {
    let mut list = wait(api.list(MAPS)).unwrap();
    for object in list["items"].as_array_mut().unwrap() {
        object["metadata"]["resourceVersion"] = Value::Null;
    }
    list["items"].take()
}

#[test]
fn objects_are_saved_from_a_server_that_runs_and_restored_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let [first, second, third] = ["first", "second", "third"].map(|name| text(&path(name)));
    let [saved, cold, cut] = ["saved", "cold", "cut"].map(|name| text(&path(name)));

    let (server, api) = Served::start(Path::new(&first));
    for n in 0..50 {
        let map = json!({"metadata": {"name": format!("m{n}")}, "data": {"fill": "x".repeat(10_000)}});
        wait(api.create(MAPS, &map)).unwrap();
    }
    let before = objects(&api);
    let (code, told) = run(&["backup", &saved, "--data-dir", &first]);
    assert_eq!((code, told.ends_with(" objects saved\n")), (Some(0), true), "{told}");
    assert_eq!(std::fs::metadata(&saved).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, told) = run(&["backup", &saved, "--data-dir", &first]);
    assert_eq!(code, Some(3), "what is there is kept: {told}");
    let (code, told) = run(&["copy", "--from", &first, "--to", &second]);
    assert!(
        code == Some(3) && told.contains("another weft apiserver uses it; stop that one first"),
        "{told}"
    );
    server.stop();

    // A server that is stopped is saved to the same bytes.
    assert_eq!(run(&["backup", &cold, "--data-dir", &first]).0, Some(0));
    let whole = std::fs::read(&saved).unwrap();
    assert!(whole == std::fs::read(&cold).unwrap());

    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let (code, told) = run(&["restore", &cut, "--data-dir", &second]);
    assert!(code == Some(3) && told.contains(&cut), "{told}");
    let (code, told) = run(&["restore", &saved, "--data-dir", &first]);
    assert!(code == Some(3) && told.contains("there are objects already"), "{told}");
    assert_eq!(run(&["restore", &saved]).0, Some(2), "no place is given");
    assert_eq!(run(&["restore", &saved, "--data-dir", &second]).0, Some(0));
    assert_eq!(run(&["copy", "--from", &second, "--to", &third]).0, Some(0));
    for dir in [&second, &third] {
        let (server, api) = Served::start(Path::new(dir));
        assert_eq!(objects(&api), before);
        server.stop();
    }
}
