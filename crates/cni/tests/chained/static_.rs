//! The IPAM plugin `static`, alone and for a bridge.

use serde_json::{Value, json};

use crate::common::{Call, Node, path};

#[test]
fn static_answers_as_the_reference_in_every_version() {
    let address = |address: &str, gateway: &str| json!({"address": address, "gateway": gateway});
    let variants = [
        json!({"addresses": [address("10.7.0.9/24", "10.7.0.1"), {"address": "fd00:7::9/64"}],
               "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.7.0.2"}],
               "dns": {"nameservers": ["10.96.0.10"], "domain": "shop.svc", "search": ["svc"], "options": ["ndots:5"]}}),
        json!({}),
        json!({"addresses": [address("fd00:7::9/64", "")]}),
        json!({"addresses": [{"address": "10.7.0.9"}]}),
        json!({"addresses": [address("10.7.0.9/24", "rubbish")]}),
        json!({"addresses": [address("10.7.0.9/24", ""), address("10.7.1.9/24", "")]}),
    ];
    let arguments = [
        "",
        "IP=10.6.0.5/16,fd00:6::5/64;GATEWAY=10.6.0.1,10.7.0.77",
        "IP=10.6.0.5",
        "IP=10.6.0.5/16;GATEWAY=x",
    ];
    let given = &[
        json!({}),
        json!({"args": {"cni": {"ips": ["10.5.0.5/16"]}}}),
        json!({"runtimeConfig": {"ips": ["10.4.0.5/16", "fd00:4::5/64"]},
                        "args": {"cni": {"ips": ["10.5.0.5/16"]}}}),
    ];
    let node = Node::new();
    let pod = node.pod();
    let netns = path(&pod);
    for version in ["0.1.0", "0.2.0", "0.3.1", "0.4.0", "1.0.0"] {
        for (variant, extra, more) in variants.iter().flat_map(|variant| {
            arguments.iter().flat_map(move |extra| given.iter().map(move |more| (variant, extra, more)))
        }) {
            let mut config = json!({"cniVersion": version, "name": "net", "type": "static", "ipam": variant});
            config["ipam"]["type"] = json!("static");
            for (key, value) in more.as_object().unwrap() {
                config[key] = value.clone();
            }
            let call = Call::new("ADD", "c1", Some(&netns), &config);
            let call = call.env("CNI_ARGS", Some(extra));
            let (ours, reference) = (call.run(), call.clone().reference().run());
            // The older versions have no result without an address, so the reference cannot say it.
            if reference.message().contains("no valid IP addresses") {
                assert!(ours.json.get("ip4").is_none() && ours.json.get("ip6").is_none());
                continue;
            }
            assert_eq!(ours.ok, reference.ok, "{config} {extra}: {} {}", ours.json, reference.json);
            if ours.ok {
                // Releases of the reference differ in whether they write DNS settings that are none.
                let answers = [ours.json, reference.json].map(|mut json| {
                    json.as_object_mut().unwrap().retain(|key, value| key != "dns" || *value != json!({}));
                    json
                });
                assert_eq!(answers[0], answers[1], "{config} {extra}");
            }
        }
    }
}

#[test]
fn a_bridge_has_the_addresses_that_static_gives() {
    let node = Node::new();
    let mut config = node.config(&[]);
    config["ipam"] =
        json!({"type": "static", "addresses": [{"address": "10.7.0.9/24", "gateway": "10.7.0.1"}]});
    let pod = node.pod();
    let result = node.add("c1", &pod, &config).success();
    assert_eq!(result["ips"], json!([{"address": "10.7.0.9/24", "gateway": "10.7.0.1", "interface": 2}]));
    let call = |command: &str, config: &Value| Call::new(command, "c1", Some(&path(&pod)), config).run();
    let mut made = config.clone();
    made["prevResult"] = result;
    call("CHECK", &made).success();
    made["ipam"]["addresses"][0]["gateway"] = json!("10.7.0.2");
    assert_eq!(call("CHECK", &made).code(), 100);
    node.del("c1", Some(&pod), &config).success();
    assert!(node.pod_links().is_empty());
    config["ipam"]["addresses"] = json!([]);
    assert_eq!(node.add("c2", &pod, &config).code(), 7);
    assert!(node.pod_links().is_empty());
}
