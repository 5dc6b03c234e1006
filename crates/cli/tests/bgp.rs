//! `weft route-reflector` and `weft bgp` with speakers that are its clients, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use weft_bgp::message::{Attributes, NextHop};
use weft_bgp::session::PeerAs;
use weft_bgp::speaker::{Filter, Neighbour, PORT, Password, Remote, Settings, Speaker, Ttl};
use weft_kernel::testing::{TestNs, eventually};

const SOON: Duration = Duration::from_secs(60);

struct Reflector(Child);

impl Reflector {
    fn start(folder: &Path) -> Reflector {
        std::fs::write(folder.join("password"), "secret\n").unwrap();
        let arguments = "route-reflector --as 64512 --id 10.0.0.9 --listen 0.0.0.0:179 --client 10.0.1.2 \
                         --clients 10.0.2.0/24 --restart-time 60s";
        let child = Command::new(env!("CARGO_BIN_EXE_weft"))
            .args(arguments.split_whitespace())
            .arg("--password-file")
            .arg(folder.join("password"))
            .arg("--state-dir")
            .arg(folder)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Reflector(child)
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bgp(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command.arg("bgp").args(arguments).arg("--socket").arg(folder.join("bgp.sock")).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// A client that has a prefix of its own.
fn client(reflector: &str, number: u8) -> Settings {
    let id = format!("10.0.{number}.2").parse().unwrap();
    let mut settings = Settings::new(64512, id);
    let neighbour = Neighbour {
        password: Password::new("secret"),
        ttl: Ttl::Hops(2),
        graceful_restart: Some(Duration::from_secs(60)),
        ..Neighbour::new(Remote::Address { ip: reflector.parse().unwrap(), port: PORT }, PeerAs::Internal)
    };
    settings.neighbours.insert("reflector".into(), neighbour);
    settings.listen = vec![format!("0.0.0.0:{PORT}").parse().unwrap()];
    let mine = Attributes::new(NextHop::V4(std::net::Ipv4Addr::UNSPECIFIED));
    settings.originated.insert(format!("10.244.{number}.0/24").parse().unwrap(), mine);
    settings
}

#[test]
fn clients_hear_of_one_another_through_a_reflector_that_is_killed_and_comes_again() {
    let mut test = TestNs::new();
    let folder = tempfile::tempdir().unwrap();
    let here = test.ns().clone();
    let speakers: Vec<Speaker> = [1u8, 2]
        .into_iter()
        .map(|number| {
            let ns = test.extra(&number.to_string());
            let (near, far) = (format!("10.0.{number}.1/24"), format!("10.0.{number}.2/24"));
            test.join((&here, &format!("client{number}"), &near), (&ns, "eth0", &far));
            let settings = client(&format!("10.0.{number}.1"), number);
            ns.run(move || Speaker::start(settings)).unwrap().unwrap()
        })
        .collect();
    // What the first client has of the second one's: whether it is kept for want of better.
    let heard = || {
        let filter = Filter { neighbour: Some(Arc::from("reflector")), ..Filter::default() };
        speakers[0].routes(filter).first().map(|route| (route.prefix.to_string(), route.stale))
    };
    let missing = bgp(folder.path(), &["peers"]);
    assert_eq!(missing.status.code(), Some(3), "nobody answers yet");
    let mut reflector = Reflector::start(folder.path());
    eventually(SOON, "routes are reflected", || heard() == Some(("10.244.2.0/24".to_owned(), false)));
    eventually(SOON, "all are up", || bgp(folder.path(), &["peers"]).status.code() == Some(0));

    let peers = json(&bgp(folder.path(), &["peers", "-o", "json"]));
    let names: Vec<&str> = peers.as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
    assert_eq!(names.len(), 2, "{peers:#}");
    assert!(names[0] == "10.0.1.2" && names[1].contains("10.0.2.2"), "{peers:#}");
    let routes = json(&bgp(folder.path(), &["routes", "10.244.0.0/16", "-o", "json"]));
    assert_eq!(routes.as_array().unwrap().len(), 2, "{routes:#}");
    let explained = bgp(folder.path(), &["explain", "10.244.2.0/24"]);
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(text.contains("BETTER BY") && text.contains("10.0.2.2"), "{text}");
    assert_eq!(bgp(folder.path(), &["explain", "10.9.9.0/24"]).status.code(), Some(1));
    assert_eq!(bgp(folder.path(), &["reset", "nobody"]).status.code(), Some(1));

    reflector.0.kill().unwrap();
    reflector.0.wait().unwrap();
    eventually(SOON, "its routes are kept", || heard() == Some(("10.244.2.0/24".to_owned(), true)));
    let again = Reflector::start(folder.path());
    eventually(SOON, "it has told them again", || {
        let route = heard();
        assert!(route.is_some(), "the route went");
        route == Some(("10.244.2.0/24".to_owned(), false))
    });
    assert_eq!(bgp(folder.path(), &["reset", "10.0.1.2", "--message", "new filters"]).status.code(), Some(0));
    eventually(SOON, "it is up again", || bgp(folder.path(), &["peers"]).status.code() == Some(0));
    drop(again);
}

#[test]
fn what_cannot_be_a_reflector_is_refused() {
    for (arguments, word) in [
        ("--as 0 --id 10.0.0.9 --clients 10.0.0.0/8", "AS 0"),
        ("--as 1 --id 0.0.0.0 --clients 10.0.0.0/8", "identifier"),
        ("--as 1 --id 10.0.0.9", "--clients"),
        ("--as 1 --id 10.0.0.9 --client 10.0.0.1 --peer 10.0.0.1", "twice"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_weft"))
            .arg("route-reflector")
            .args(arguments.split_whitespace())
            .arg("--state-dir")
            .arg(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {said}");
        assert!(said.contains(word), "{arguments}: {said}");
    }
}
