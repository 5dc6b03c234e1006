use super::*;

fn found(text: &str) -> Vec<(usize, usize, String)> {
    let report = validate(text.as_bytes(), &[]);
    report
        .mistakes
        .into_iter()
        .map(|m| (m.position.line, m.position.column, format!("{}: {}", m.key, m.reason)))
        .collect()
}

#[track_caller]
fn says(text: &str, expected: &[(usize, usize, &str)]) {
    let found = found(text);
    let shown = || format!("{found:#?}");
    assert_eq!(found.len(), expected.len(), "{}", shown());
    for ((line, column, text), (at_line, at_column, begins)) in found.iter().zip(expected) {
        assert_eq!((line, column), (at_line, at_column), "{text}");
        assert!(text.starts_with(begins), "{text}\n{begins}");
    }
}

#[test]
fn a_sound_list_is_explained_without_a_mistake() {
    let text = r#"{"cniVersion": "1.0.0", "name": "net", "plugins": [
        {"type": "bridge", "bridge": "br0", "isGateway": true, "mtu": 1400, "capabilities": {"ips": true},
         "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}"#;
    let report = validate(text.as_bytes(), &[]);
    assert!(report.mistakes.is_empty() && report.notes.is_empty(), "{report:#?}");
    assert_eq!((report.network.as_str(), report.cni_version.as_str()), ("net", "1.0.0"));
    let step = &report.steps[0];
    assert_eq!(step.plugin, "bridge");
    assert!(step.does.contains("veth"));
    for word in ["br0", "gateway", "1400", "ips", "10.1.0.0/24", "0.0.0.0/0"] {
        assert!(step.settings.iter().any(|line| line.contains(word)), "{word}: {:?}", step.settings);
    }
}

#[test]
fn all_mistakes_come_at_once_with_their_places() {
    let text = r#"{
  "cniVersion": "1.0.0",
  "nmae": "net",
  "name": "net",
  "plugins": [
    {
      "type": "bridge",
      "isGatway": true,
      "mtu": "big",
      "capabilities": {"portMapping": true},
      "ipam": {
        "type": "host-local",
        "rangs": [],
        "ranges": [[{"subnet": "10.1.0.0/24", "gatway": "10.1.0.1"}], [{"subnet": "10.1.0.0/25"}]]
      }
    },
    {"type": "host-local"},
    {"type": "brigde"}
  ]
}"#;
    says(
        text,
        &[
            (3, 3, "nmae: no list has this key; did you mean name?"),
            (8, 7, "plugins[0].isGatway: the plugin has no such key; did you mean isGateway?"),
            (9, 7, "plugins[0].mtu: invalid type: string \"big\""),
            (
                10,
                24,
                "plugins[0].capabilities.portMapping: there is no such capability; did you mean portMappings?",
            ),
            (13, 9, "plugins[0].ipam.rangs: the plugin has no such key; did you mean ranges?"),
            (
                14,
                47,
                "plugins[0].ipam.ranges[0][0].gatway: the plugin has no such key; did you mean gateway?",
            ),
            (14, 71, "plugins[0].ipam.ranges[1]: "),
            (17, 6, "plugins[1].type: host-local gives addresses to another plugin"),
            (
                18,
                6,
                "plugins[2].type: there is no plugin \"brigde\" here or in CNI_PATH (); did you mean bridge?",
            ),
        ],
    );
}

#[test]
fn what_is_no_configuration_has_one_mistake_with_its_place() {
    says("{\n  \"a\": 1,\n}", &[(3, 1, ": trailing comma")]);
    says("", &[(1, 1, ": EOF")]);
    says("[]", &[(1, 1, ": it is not a JSON object")]);
    let mut bytes = b"{\n\"a\": \"".to_vec();
    bytes.push(0xff);
    let report = validate(&bytes, &[]);
    assert_eq!(report.mistakes[0].position, Position { line: 2, column: 7 });
}

#[test]
fn what_every_network_needs_is_asked_for() {
    says(
        r#"{"plugins": []}"#,
        &[(1, 1, "cniVersion: it is missing"), (1, 1, "name: it is missing"), (1, 2, "plugins: it is empty")],
    );
    says(
        r#"{"cniVersion": "9.9.9", "name": "n", "name": "m", "disableGC": 3, "plugins": [{}, 1, {"type": "loopback"}]}"#,
        &[
            (1, 2, "cniVersion: \"9.9.9\" is not supported"),
            (1, 38, "name: it comes twice"),
            (1, 51, "disableGC: give true or false"),
            (1, 79, "plugins[0].type: it is missing"),
            (1, 83, "plugins[1]: it is no object"),
        ],
    );
    says(
        r#"{"cniVersion": "1.0.0", "name": "a/b", "type": "bridge", "ipam": {"type": "bridge"}}"#,
        &[(1, 25, "name: "), (1, 67, "ipam.type: ")],
    );
}

#[test]
fn the_keys_of_each_ipam_plugin_are_known() {
    let with = |keys: &str| {
        format!(
            r#"{{"cniVersion": "1.0.0", "name": "n", "type": "macvlan", "master": "eth0", "ipam": {{{keys}}}}}"#
        )
    };
    says(
        &with(
            r#""type": "dhcp", "daemonSocketPath": "/run/dhcp.sock", "request": [{"option": "121", "skipDefault": true}],
               "provide": [{"option": "12", "value": "a", "fromArg": "B"}], "priority": 5, "dhcpv4": true,
               "dhcpv6": "stateful", "clientIdentifier": "duid""#,
        ),
        &[],
    );
    says(
        &with(r#""type": "dhcp", "requests": [], "provide": [{"options": "12", "option": "12"}]"#),
        &[(1, 100, "ipam.requests: "), (1, 129, "ipam.provide[0].options: ")],
    );
    says(&with(r#""type": "dhcp", "dhcpv6": "slaac""#), &[(1, 100, "ipam.dhcpv6: ")]);
    says(&with(r#""type": "static", "address": []"#), &[(1, 102, "ipam.address: ")]);
}

/// Every plugin of ours looks at its configuration, and nothing of the node is changed by it.
#[test]
fn every_plugin_is_rehearsed_without_acting() {
    let _ns = weft_kernel::testing::TestNs::new();
    let before = weft_kernel::testing::MachineDump::take();
    for kind in names().filter(|kind| explain::place(kind) != Place::Ipam) {
        let first = if explain::place(kind) == Place::Chained { r#"{"type": "loopback"}, "# } else { "" };
        let text = format!(
            r#"{{"cniVersion": "1.0.0", "name": "n", "plugins": [{first}{{"type": "{kind}", "ipam": {{"type": "static",
                "addresses": [{{"address": "10.1.0.2/24"}}]}}, "sysctl": {{"net.ipv4.conf.IFNAME.forwarding": "1"}},
                "master": "eth0", "device": "eth9", "vlanId": 5, "vrfname": "red", "bridge": "br5",
                "capabilities": {{"portMappings": true}}, "ingressRate": 8000, "ingressBurst": 8000}}]}}"#
        );
        validate(text.as_bytes(), &[]);
    }
    before.assert_unchanged();
}

#[test]
fn no_text_makes_it_panic() {
    for text in [
        "null",
        "{\"plugins\": {\"type\": 1}}",
        "{\"type\": {}}",
        "{\"type\":\"bridge\",\"ipam\":[]}",
        "{\"plugins\":[[]]}",
    ] {
        assert!(!validate(text.as_bytes(), &[]).mistakes.is_empty(), "{text}");
    }
}
