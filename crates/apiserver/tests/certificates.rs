//! Who a certificate says a client is, and what the server shows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use common::Running;
use serde_json::Value;
use weft_apiserver::{Identity, kubeconfig};

fn identity(server: &Running, user: &str, groups: &[&str]) -> std::path::PathBuf {
    let groups = groups.iter().map(|g| (*g).to_owned()).collect();
    let identity = Identity { user: user.to_owned(), groups, days: None };
    let text = kubeconfig(&server.dir.path().join("data"), &identity, None).unwrap();
    let path = server.dir.path().join(format!("{}.kubeconfig", user.replace(':', "-")));
    std::fs::write(&path, text).unwrap();
    path
}

fn kubectl(server: &Running, config: &Path, args: &[&str]) -> Output {
    let mut command = server.kubectl(args);
    command.env("KUBECONFIG", config).output().unwrap()
}

fn whoami(server: &Running, config: &Path) -> Result<Value, String> {
    let output = kubectl(server, config, &["auth", "whoami", "-o", "json"]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(text(&output.stderr)),
    }
}

#[test]
fn a_certificate_names_a_user_and_any_number_of_groups() {
    let server = Running::start();
    let config = identity(&server, "ann", &["dev", "ops", "night"]);
    let review = whoami(&server, &config).unwrap();
    let user = &review["status"]["userInfo"];
    assert_eq!(user["username"], "ann");
    assert_eq!(user["groups"], serde_json::json!(["dev", "ops", "night", "system:authenticated"]));
    let refused = kubectl(&server, &config, &["get", "pods"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains(r#"pods is forbidden: User "ann" cannot list resource "pods""#), "{said}");
    let masters = identity(&server, "root", &["system:masters"]);
    assert!(kubectl(&server, &masters, &["get", "secrets", "-A"]).status.success());
}

#[test]
fn another_authority_s_clients_are_turned_away_until_it_is_trusted() {
    let other = Running::start();
    let foreign_ca = other.dir.path().join("data/ca.crt");
    let server = Running::start_with(|config| {
        let path = config.data_dir.with_file_name("clients.crt");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy(&foreign_ca, &path).unwrap();
        config.client_ca_file = Some(path);
    });
    let plain = Running::start();
    let foreign = std::fs::read_to_string(identity(&other, "eve", &["dev"])).unwrap();
    let foreign: Value = serde_json::from_str(&foreign).unwrap();
    let of = |server: &Running| {
        let mut config: Value = serde_json::from_str(
            &std::fs::read_to_string(server.dir.path().join("data/admin.kubeconfig")).unwrap(),
        )
        .unwrap();
        config["users"][0]["user"] = foreign["users"][0]["user"].clone();
        let path = server.dir.path().join("foreign.kubeconfig");
        std::fs::write(&path, config.to_string()).unwrap();
        path
    };
    assert!(whoami(&plain, &of(&plain)).is_err());
    assert_eq!(whoami(&server, &of(&server)).unwrap()["status"]["userInfo"]["username"], "eve");
}

#[test]
fn given_certificates_are_shown_and_read_again_when_they_change() {
    let (first, second) = (Running::start(), Running::start());
    let copy = |from: &Running, to: &Path| {
        // Any certificate does to see which one is shown: here a client's of another server.
        let text = std::fs::read_to_string(identity(from, "shown", &[])).unwrap();
        let user: Value = serde_json::from_str(&text).unwrap();
        for (field, file) in [("client-certificate-data", "tls.crt"), ("client-key-data", "tls.key")] {
            use base64::Engine;
            let data = user["users"][0]["user"][field].as_str().unwrap();
            let data = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
            std::fs::write(to.join(format!("{file}.new")), data).unwrap();
        }
        for file in ["tls.crt", "tls.key"] {
            std::fs::rename(to.join(format!("{file}.new")), to.join(file)).unwrap();
        }
    };
    let server = Running::start_with(|config| {
        let dir = config.data_dir.parent().unwrap().to_owned();
        copy(&first, &dir);
        config.tls_cert_file = Some(dir.join("tls.crt"));
        config.tls_private_key_file = Some(dir.join("tls.key"));
    });
    let shown = |server: &Running| {
        let address = server.address.to_string();
        let line = format!(
            "openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -noout -fingerprint"
        );
        String::from_utf8(std::process::Command::new("sh").args(["-c", &line]).output().unwrap().stdout)
            .unwrap()
    };
    let before = shown(&server);
    assert!(before.contains("Fingerprint="), "{before}");
    std::fs::write(server.dir.path().join("tls.crt"), "nonsense").unwrap();
    copy(&second, server.dir.path());
    let end = Instant::now() + Duration::from_secs(30);
    while shown(&server) == before {
        assert!(Instant::now() < end, "the new certificate is not shown");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn an_operator_s_own_authority_is_used() {
    let other = Running::start();
    let server = Running::start_with(|config| {
        std::fs::create_dir(&config.data_dir).unwrap();
        for file in ["ca.crt", "ca.key"] {
            std::fs::copy(other.dir.path().join("data").join(file), config.data_dir.join(file)).unwrap();
        }
    });
    server.run(&["get", "nodes"], "");
    assert_eq!(
        whoami(&server, &identity(&server, "ann", &[])).unwrap()["status"]["userInfo"]["username"],
        "ann"
    );
    let mode = std::fs::metadata(server.dir.path().join("data")).unwrap().permissions().mode();
    // The folder was there before the server: it is the operator's.
    assert!(mode & 0o700 == 0o700);
}
