//! Bad input, each row of a table with the code that the specification wants, given to the
//! executable itself. Nothing is changed by any of them.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::{Call, Node, path};
use serde_json::{Value, json};

struct Row {
    what: &'static str,
    call: Call,
    code: u64,
    says: &'static str,
}

/// Sets a place of the configuration, as `/ipam/type`; null removes it.
fn with(config: &Value, place: &str, value: Value) -> Value {
    let mut config = config.clone();
    let (parent, key) = place.rsplit_once('/').unwrap();
    let parent = config.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Value::Null => parent.remove(key),
        value => parent.insert(key.into(), value),
    };
    config
}

#[test]
fn the_environment_is_checked() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    let pod = node.pod();
    let add = Call::new("ADD", "c1", Some(&path(&pod)), &config);
    let row =
        |what, key, value: Option<&str>, says| Row { what, call: add.clone().env(key, value), code: 4, says };
    let long = "a".repeat(4096);
    let pod_name = format!("K8S_POD_NAMESPACE=a;K8S_POD_NAME={}", "a".repeat(300));
    check(
        &node,
        [
            row("1", "CNI_COMMAND", None, "CNI_COMMAND"),
            row("2", "CNI_COMMAND", Some("FOO"), "CNI_COMMAND"),
            row("3", "CNI_COMMAND", Some("add"), "CNI_COMMAND"),
            row("4", "CNI_CONTAINERID", None, "CNI_CONTAINERID"),
            row("5", "CNI_CONTAINERID", Some(""), "CNI_CONTAINERID"),
            row("6", "CNI_CONTAINERID", Some("../../etc"), "CNI_CONTAINERID"),
            row("7", "CNI_CONTAINERID", Some("-abc"), "CNI_CONTAINERID"),
            row("7", "CNI_CONTAINERID", Some(".a"), "CNI_CONTAINERID"),
            row("8", "CNI_CONTAINERID", Some("a b"), "CNI_CONTAINERID"),
            row("8", "CNI_CONTAINERID", Some("a\r\nb"), "CNI_CONTAINERID"),
            row("9", "CNI_CONTAINERID", Some(&long), "CNI_CONTAINERID"),
            row("10", "CNI_NETNS", None, "CNI_NETNS"),
            row("15", "CNI_IFNAME", None, "CNI_IFNAME"),
            row("16", "CNI_IFNAME", Some("sixteen_bytes_xx"), "CNI_IFNAME"),
            row("17", "CNI_IFNAME", Some("."), "CNI_IFNAME"),
            row("17", "CNI_IFNAME", Some(".."), "CNI_IFNAME"),
            row("18", "CNI_IFNAME", Some("a/b"), "CNI_IFNAME"),
            row("18", "CNI_IFNAME", Some("a:b"), "CNI_IFNAME"),
            row("18", "CNI_IFNAME", Some("a b"), "CNI_IFNAME"),
            row("19", "CNI_IFNAME", Some("eth%d"), "CNI_IFNAME"),
            row("20", "CNI_IFNAME", Some("lo"), "CNI_IFNAME"),
            row("21", "CNI_ARGS", Some("garbage"), "CNI_ARGS"),
            row("22", "CNI_ARGS", Some("FOO=BAR"), "FOO"),
            row("23", "CNI_ARGS", Some("K8S_POD_NAME=../x"), "K8S_POD_NAME"),
            row("23", "CNI_ARGS", Some(&pod_name), "K8S_POD_NAME"),
        ],
    );
}

#[test]
fn the_text_of_the_configuration_is_checked() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    let pod = node.pod();
    let add = Call::new("ADD", "c1", Some(&path(&pod)), &config);
    let text = config.to_string();
    let row = |what, input: Vec<u8>, code, says| Row { what, call: add.clone().input(input), code, says };
    let deep = format!("{{\"name\":\"n\",\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let mut rows = vec![
        row("25", Vec::new(), 6, "decode"),
        row("27", text.as_bytes()[..text.len() / 2].to_vec(), 6, "decode"),
        row("28", [b"\xef\xbb\xbf", text.as_bytes()].concat(), 6, "decode"),
        row("28", [text.as_bytes(), b"\0"].concat(), 6, "decode"),
        row("28", b"{\"name\": \"\xff\"}".to_vec(), 6, "utf-8"),
        row("29", b"null".to_vec(), 6, "object"),
        row("29", b"[]".to_vec(), 6, "object"),
        row("29", b"42".to_vec(), 6, "object"),
        row("31", [text.as_bytes(), &[b' '; 2 << 20]].concat(), 7, "1 MiB"),
        row("32", text.replacen('{', "{\"name\":\"x\",", 1).into_bytes(), 6, "duplicate"),
        row("33", text.replace("\"name\"", "\"Name\"").into_bytes(), 7, "name"),
        row("33", text.replace("cniVersion", "CNIVERSION").into_bytes(), 1, "cniVersion"),
    ];
    // Nothing of an unknown key is looked at, so its depth is no fault; a known one's is.
    rows.push(row("30", deep.into_bytes(), 1, "cniVersion"));
    let deep =
        format!("{{\"name\":\"n\",\"ipam\":{{\"x\":{}{}}}}}", "[".repeat(100_000), "]".repeat(100_000));
    rows.push(row("30", deep.into_bytes(), 6, "recursion"));
    check(&node, rows);
}

#[test]
fn the_keys_of_the_configuration_are_checked() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    let dual = node.config(&["10.9.0.0/24", "fd00:9::/64"]);
    let pod = node.pod();
    let netns = path(&pod);
    let call = |command: &str, config: &Value| Call::new(command, "c1", Some(&netns), config);
    let row = |what, place: &str, value, code, says| Row {
        what,
        call: call("ADD", &with(&config, place, value)),
        code,
        says,
    };
    let range = |value| json!([[value]]);
    let mut rows = vec![
        row("34", "/cniVersion", Value::Null, 1, "cniVersion"),
        row("35", "/cniVersion", json!("9.9.9"), 1, "9.9.9"),
        row("36", "/cniVersion", json!("v1"), 1, "cniVersion"),
        row("36", "/cniVersion", json!("1.x"), 1, "cniVersion"),
        row("37", "/cniVersion", json!(1.0), 6, "cniVersion"),
        row("38", "/name", Value::Null, 7, "name"),
        row("38", "/name", json!(""), 7, "name"),
        row("39", "/name", json!("../x"), 7, "name"),
        row("39", "/name", json!("a/b"), 7, "name"),
        row("39", "/name", json!("-a"), 7, "name"),
        row("40", "/name", json!("a".repeat(300)), 7, "name"),
        row("41", "/mtu", json!("1500"), 6, "mtu"),
        row("42", "/mtu", json!(-1), 7, "mtu"),
        row("42", "/mtu", json!(67), 7, "mtu"),
        row("42", "/mtu", json!(70000), 7, "mtu"),
        row("41", "/ipam/dataDir", json!(5), 6, "ipam.dataDir"),
        row("41", "/ipam/ranges", json!([[{"subnet": 5}]]), 6, "ipam.ranges[0][0].subnet"),
        row("41", "/ipam/type", json!(5), 6, "ipam.type"),
        row("44", "/ipam/type", json!("no-such-plugin"), 7, "ipam.type"),
        row("45", "/ipam/type", json!("../../bin/sh"), 7, "ipam.type"),
        row("46", "/ipam/ranges", range(json!({"subnet": "10.0.0.1/24"})), 7, "ipam.ranges[0][0].subnet"),
        row("47", "/ipam/ranges", range(json!({"subnet": "10.0.0.0/31"})), 7, "too small"),
        row("47", "/ipam/ranges", range(json!({"subnet": "10.0.0.0/32"})), 7, "too small"),
        row("48", "/ipam/ranges", range(json!({"subnet": "010.0.0.0/8"})), 7, "subnet"),
        row("49", "/ipam/ranges", range(json!({"subnet": "::ffff:10.0.0.0/104"})), 7, "subnet"),
        row(
            "50",
            "/ipam/ranges",
            range(json!({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.8"})),
            7,
            "rangeStart",
        ),
        row(
            "50",
            "/ipam/ranges",
            range(json!({"subnet": "10.0.0.0/24", "rangeEnd": "10.0.1.8"})),
            7,
            "rangeEnd",
        ),
        row(
            "50",
            "/ipam/ranges",
            json!([[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.0.0.0/25"}]]),
            7,
            "overlaps",
        ),
        row("50", "/ipam/ranges", json!([[{"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}]]), 7, "family"),
        row(
            "51",
            "/ipam/ranges",
            range(json!({"subnet": "10.0.0.0/24", "gateway": "10.0.1.1"})),
            7,
            "gateway",
        ),
        row(
            "51",
            "/ipam/ranges",
            range(json!({"subnet": "10.0.0.0/24", "gateway": "10.0.0.0"})),
            7,
            "gateway",
        ),
        row("52", "/ipam/routes", json!([{"dst": "10.0.0.300/8"}]), 7, "ipam.routes[0].dst"),
        row("52", "/ipam/routes", json!([{"dst": "0.0.0.0/0", "gw": "fd00::1"}]), 7, "ipam.routes[0].gw"),
        row("54", "/ipMasqBackend", json!("ebtables"), 2, "ebtables"),
        row("54", "/vlan", json!(4095), 7, "vlan: 4095"),
        row("54", "/promiscMode", json!(true), 7, "promiscMode"),
        row("55", "/prevResult", json!({"ips": [{"address": "rubbish"}]}), 6, "prevResult"),
    ];
    let old = with(&config, "/cniVersion", json!("0.3.1"));
    let bad_version = with(&config, "/cniVersion", json!("v1"));
    let garbage = with(&config, "/prevResult", json!({"ips": 42}));
    let newest = with(&config, "/cniVersion", json!("1.1.0"));
    let ptp = with(&config, "/type", json!("ptp"));
    let more = [
        ("43", "ADD", with(&ptp, "/ipam", Value::Null), 7, "ipam"),
        ("36", "CHECK", bad_version.clone(), 6, "cniVersion"),
        ("36", "GC", bad_version.clone(), 6, "cniVersion"),
        ("36", "STATUS", bad_version, 6, "cniVersion"),
        ("42", "ADD", with(&dual, "/mtu", json!(1279)), 7, "mtu"),
        ("55", "CHECK", garbage, 6, "prevResult"),
        ("56", "CHECK", config.clone(), 7, "prevResult"),
        ("57", "CHECK", old, 1, "CHECK"),
        ("57", "GC", config.clone(), 1, "GC"),
        ("57", "STATUS", config.clone(), 1, "STATUS"),
        ("58", "GC", newest, 7, "valid-attachments"),
    ];
    rows.extend(more.map(|(what, command, config, code, says)| Row {
        what,
        call: call(command, &config),
        code,
        says,
    }));
    check(&node, rows);
}

#[test]
fn a_del_succeeds_where_an_add_does_not() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    let pod = node.pod();
    let netns = path(&pod);
    let del = |config: &Value| Call::new("DEL", "c1", Some(&netns), config);
    for (what, call) in [
        ("11", del(&config).env("CNI_NETNS", Some("/no/such"))),
        ("12", del(&config).env("CNI_NETNS", Some("/etc/hostname"))),
        ("no CNI_NETNS", del(&config).env("CNI_NETNS", None)),
        ("21", del(&config).env("CNI_ARGS", Some("garbage"))),
        ("24", del(&config).env("CNI_PATH", None)),
        ("55", del(&with(&config, "/prevResult", json!({"ips": 42})))),
        ("46", del(&with(&config, "/ipam/ranges", json!([[{"subnet": "10.0.0.1/24"}]])))),
    ] {
        let answer = call.run();
        assert!(answer.ok && answer.json.is_null(), "row {what}: {}", answer.json);
    }
}

#[test]
fn cni_path_may_be_absent_and_endless_input_ends() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    let pod = node.pod();
    Call::new("ADD", "c1", Some(&path(&pod)), &config).env("CNI_PATH", None).run().success();
    let add = Call::new("ADD", "c2", Some(&path(&pod)), &config);
    let mut command = std::process::Command::new(&add.program);
    let endless = std::fs::File::open("/dev/zero").unwrap();
    let output = command.envs(&add.env).stdin(endless).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["code"], 7);
    let directory = std::fs::File::open("/").unwrap();
    let output = std::process::Command::new(&add.program).envs(&add.env).stdin(directory).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["code"], 5, "row 26");
}

#[test]
fn version_answers_in_the_callers_version_and_with_all_of_ours() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    for (input, version) in [(config.to_string(), "1.0.0"), (String::new(), "1.1.0")] {
        let made = Call::new("VERSION", "", None, &config).input(input).run().success();
        assert_eq!(made["cniVersion"], version);
        assert_eq!(made["supportedVersions"].as_array().unwrap().len(), 7);
    }
}

#[track_caller]
fn check(node: &Node, rows: impl IntoIterator<Item = Row>) {
    let before = node.settled();
    for row in rows {
        let answer = row.call.run();
        assert!(!answer.ok, "row {} succeeded: {}", row.what, answer.json);
        assert_eq!(answer.code(), row.code, "row {}: {}", row.what, answer.json);
        let message = answer.message().to_lowercase();
        assert!(
            message.contains(&row.says.to_lowercase()),
            "row {} should name {}: {message}",
            row.what,
            row.says
        );
    }
    before.assert_unchanged();
    assert!(!node.network().exists(), "nothing was allocated");
}

/// It would start itself without end as the IPAM plugin that it delegates to.
#[test]
fn a_link_with_a_name_that_is_no_plugins_is_refused() {
    let node = Node::new();
    let (pod, bin) = (node.pod(), tempfile::tempdir().unwrap());
    let link = bin.path().join("no-such-ipam");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weft-cni"), &link).unwrap();
    let mut config = node.config(&["10.9.0.0/24"]);
    config["ipam"] = json!({"type": "no-such-ipam"});
    let call = Call::new("ADD", "c1", Some(&path(&pod)), &config);
    let refused = call.env("CNI_PATH", bin.path().to_str()).run();
    assert!(
        !refused.ok && refused.code() == 7 && refused.message().contains("no-such-ipam"),
        "{}",
        refused.json
    );
    assert!(node.pod_links().is_empty());
}
