//! The daemon itself: how it is started and ended, and who talks to it.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use weft_ipam::dhcp::v4::kind;
use weft_kernel::testing::eventually;

use crate::common::{Call, path};
use crate::fake::Fake;
use crate::harness::{Lan, PATIENCE, address_of};

const RANGE: &str = "--dhcp-range=10.1.0.50,10.1.0.60,255.255.255.0,120";
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 70);

#[test]
fn ended_by_sigterm_it_keeps_the_leases_and_leaves_no_socket() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let _dnsmasq = lan.dnsmasq(&server, "one", &[RANGE]);
    let pidfile = lan.file("pid");
    let mut daemon = lan.daemon(&["-pidfile", pidfile.to_str().unwrap()]);
    assert_eq!(lan.read("pid"), daemon.0.id().to_string());
    let pod = lan.pod();
    lan.add("web", &pod, &lan.config(json!({}))).success();
    Command::new("kill").arg(daemon.0.id().to_string()).status().unwrap();
    assert!(daemon.0.wait().unwrap().success());
    assert!(!lan.file("sock").exists() && !pidfile.exists());
    assert_eq!(lan.saved(), 1);
    assert!(!lan.read("one.log").contains("DHCPRELEASE"));
}

#[test]
fn a_second_daemon_on_the_socket_is_refused() {
    let lan = Lan::new();
    let _daemon = lan.daemon(&[]);
    let second = Command::new(lan.file("dhcp"))
        .args(["daemon", "-socketpath", lan.file("sock").to_str().unwrap()])
        .args(["-datadir", lan.file("other").to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("another DHCP daemon"), "{said}");
    let wrong = Command::new(lan.file("dhcp")).args(["daemon", "-nothing"]).output().unwrap();
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("usage"));
}

#[test]
fn an_add_ends_when_the_daemon_does() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let daemon = lan.daemon(&[]);
    let pod = lan.pod();
    let fake = Fake::new(&server);
    let plugin = Call::new("ADD", "web", Some(&path(&pod)), &lan.config(json!({}))).start();
    fake.expect(kind::DISCOVER);
    daemon.kill();
    let output = plugin.wait_with_output().unwrap();
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(error["code"] == 11 && error["msg"].as_str().unwrap().contains("dhcp daemon"), "{error}");
    assert_eq!(lan.saved(), 0);
}

#[test]
fn two_adds_of_one_container_have_one_lease() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let _daemon = lan.daemon(&[]);
    let pod = lan.pod();
    let fake = Fake::new(&server);
    let call = Call::new("ADD", "web", Some(&path(&pod)), &lan.config(json!({})));
    let both = [call.start(), call.start()];
    fake.lease(FIRST, &[]);
    for plugin in both {
        let output = plugin.wait_with_output().unwrap();
        assert_eq!(address_of(&serde_json::from_slice(&output.stdout).unwrap()), FIRST);
    }
    assert!(fake.silent(Duration::from_millis(100)) && lan.saved() == 1);
}

#[test]
fn a_del_during_an_add_ends_it() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let _daemon = lan.daemon(&[]);
    let pod = lan.pod();
    let fake = Fake::new(&server);
    let config = lan.config(json!({}));
    let plugin = Call::new("ADD", "web", Some(&path(&pod)), &config).start();
    fake.expect(kind::DISCOVER);
    lan.del("web", &pod, &config).success();
    let output = plugin.wait_with_output().unwrap();
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(error["code"] == 11 && error["msg"].as_str().unwrap().contains("DEL"), "{error}");
}

#[test]
fn callers_that_say_rubbish_harm_nobody() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let _dnsmasq = lan.dnsmasq(&server, "one", &[RANGE]);
    let _daemon = lan.daemon(&[]);
    let connect = b"CONNECT /_goRPC_ HTTP/1.0\n\n";
    let rubbish: [Vec<u8>; 5] = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![b'x'; 3 << 20],
        [&connect[..], &[0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]].concat(),
        [&connect[..], &[5, 0x7f, 1, 2, 3, 4]].concat(),
        [&connect[..], &[0xfc, 0x00, 0x10, 0x00, 0x00], &vec![0; 2 << 20]].concat(),
    ];
    let mut silent = UnixStream::connect(lan.file("sock")).unwrap();
    for bytes in rubbish {
        let mut stream = UnixStream::connect(lan.file("sock")).unwrap();
        // It hangs up before all is said.
        stream.write_all(&bytes).ok();
        let mut rest = Vec::new();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_to_end(&mut rest).ok();
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.0 200"), "{rest:?}");
    }
    let pod = lan.pod();
    lan.add("web", &pod, &lan.config(json!({}))).success();
    silent.write_all(connect).unwrap();
    let mut answer = [0; 12];
    silent.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.0 200");
}

#[test]
fn systemd_may_pass_the_socket() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let _dnsmasq = lan.dnsmasq(&server, "one", &[RANGE]);
    let link = lan.file("dhcp");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weft-cni"), &link).unwrap();
    let (sock, data) = (lan.file("sock"), lan.file("data"));
    let words = ["-l", sock.to_str().unwrap(), link.to_str().unwrap(), "daemon", "-datadir"];
    let mut arguments: Vec<String> = words.map(str::to_owned).to_vec();
    arguments.push(data.display().to_string());
    let log = lan.file("daemon.log");
    let mut daemon =
        crate::harness::Process::start(lan.node.ns.ns(), "systemd-socket-activate", &arguments, &log);
    eventually(PATIENCE, "it listens", || UnixStream::connect(&sock).is_ok());
    let pod = lan.pod();
    lan.add("web", &pod, &lan.config(json!({}))).success();
    Command::new("kill").arg(daemon.0.id().to_string()).status().unwrap();
    assert!(daemon.0.wait().unwrap().success());
    assert!(sock.exists(), "the socket is systemd's");
}
