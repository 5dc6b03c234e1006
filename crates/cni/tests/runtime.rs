//! The runtime's side: whole networks, by the library, with our own plugins and with others'.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{Node, path};
use serde_json::{Value, json};
use weft_cni::code;
use weft_cni::protocol::config::ValidAttachment;
use weft_cni::runtime::{Network, Runtime, Target};
use weft_kernel::{Netlink, Netns};

/// Notes each call and its input beside itself; fails where a file `fail-<COMMAND>` is; answers
/// ADD with what came before.
const OTHER: &str = r#"#!/bin/sh
dir="${0%/*}"
cat > "$dir/stdin-$CNI_COMMAND"
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_ARGS" >> "$dir/calls"
if [ -e "$dir/fail-$CNI_COMMAND" ]; then
    echo '{"code": 123, "msg": "as it was told"}'
    exit 1
fi
if [ "$CNI_COMMAND" = ADD ]; then
    sed 's/,"runtimeConfig":.*,"type"/,"type"/; s/.*"prevResult":\({.*}\),"type".*/\1/' "$dir/stdin-ADD"
fi
"#;

struct Host {
    node: Node,
    dir: tempfile::TempDir,
    runtime: Runtime,
}

impl Host {
    fn new() -> Host {
        let (node, dir) = (Node::new(), tempfile::tempdir().unwrap());
        let other = dir.path().join("other");
        fs::write(&other, OTHER).unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
        let runtime = Runtime::new(vec![dir.path().to_owned()], &dir.path().join("cache"));
        Host { node, dir, runtime }
    }

    fn network(&self, more: &Value) -> Network {
        let mut bridge = self.node.config(&["10.9.0.0/24"]);
        bridge["capabilities"] = json!({"ips": true, "mac": false});
        let other = json!({"type": "other", "capabilities": {"portMappings": true}, "zeal": 1});
        let mut list = json!({"cniVersion": "1.1.0", "name": "net", "plugins": [bridge, other]});
        list.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Network::parse(list.to_string().as_bytes()).unwrap()
    }

    fn target(&self, id: &str, pod: &Netns) -> Target {
        Target {
            container_id: id.into(),
            netns: Some(path(pod)),
            ifname: "eth0".into(),
            args: vec![("IgnoreUnknown".into(), "1".into()), ("A".into(), "b".into())],
            capabilities: json!({"ips": ["10.9.0.77/24"], "mac": "02:00:00:00:00:01", "portMappings": [{"hostPort": 1}]})
                .as_object()
                .unwrap()
                .clone(),
        }
    }

    fn calls(&self) -> String {
        let calls = self.dir.path().join("calls");
        let text = fs::read_to_string(&calls).unwrap_or_default();
        fs::remove_file(&calls).ok();
        text
    }

    fn stdin(&self, command: &str) -> Value {
        let text = fs::read_to_string(self.dir.path().join(format!("stdin-{command}"))).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn fail(&self, command: &str) {
        fs::write(self.dir.path().join(format!("fail-{command}")), "").unwrap();
    }

    fn assert_clean(&self, pod: &Netns) {
        assert!(self.node.pod_links().is_empty() && self.node.allocations().is_empty());
        assert!(Netlink::open_in(pod).unwrap().link("eth0").unwrap().is_none());
        assert!(self.runtime.attachments().unwrap().is_empty());
    }
}

#[test]
fn each_plugin_gets_what_it_is_due_and_the_attachment_is_remembered_as_libcni_does() {
    let host = Host::new();
    let pod = host.node.pod();
    let (network, target) = (host.network(&json!({})), host.target("c1", &pod));
    let result = host.runtime.add(&network, &target).unwrap();
    assert_eq!(result["ips"][0]["address"], "10.9.0.77/24");
    assert_eq!(host.calls(), "ADD c1 eth0 IgnoreUnknown=1;A=b\n");
    let stdin = host.stdin("ADD");
    assert_eq!(
        (&stdin["name"], &stdin["cniVersion"], &stdin["zeal"]),
        (&json!("net"), &json!("1.1.0"), &json!(1))
    );
    assert_eq!(stdin["runtimeConfig"], json!({"portMappings": [{"hostPort": 1}]}));
    assert_eq!(stdin["prevResult"], result);

    let file = host.dir.path().join("cache/results/net-c1-eth0");
    let cached: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!((&cached["kind"], &cached["networkName"]), (&json!("cniCacheV1"), &json!("net")));
    assert_eq!(cached["cniArgs"], json!([["IgnoreUnknown", "1"], ["A", "b"]]));
    assert_eq!(cached["netns"], path(&pod).display().to_string());
    assert_eq!(cached["capabilityArgs"]["mac"], "02:00:00:00:00:01");
    assert_eq!((&cached["result"], &cached["ifName"]), (&result, &json!("eth0")));

    assert!(host.runtime.check(&network, &target).unwrap());
    assert_eq!(host.stdin("CHECK")["prevResult"], result);
    let again = host.runtime.add(&network, &target).unwrap_err();
    assert!(again.message.contains("delete it first"), "{again}");
    assert!(host.runtime.check(&network, &target).is_ok(), "a refused ADD takes nothing away");
    host.calls();

    // The DEL has the ADD's configuration and capabilities, whatever is said now.
    let bare = Target { args: Vec::new(), capabilities: serde_json::Map::new(), ..target.clone() };
    let changed =
        Network::parse(br#"{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"other"}]}"#).unwrap();
    host.runtime.del(&changed, &bare).unwrap();
    assert_eq!(host.calls(), "DEL c1 eth0 IgnoreUnknown=1;A=b\n");
    assert_eq!(host.stdin("DEL")["prevResult"], result);
    host.assert_clean(&pod);
    host.runtime.del(&network, &target).unwrap();
}

#[test]
fn what_fails_is_undone_and_the_error_is_the_plugins() {
    let host = Host::new();
    let pod = host.node.pod();
    let (network, target) = (host.network(&json!({})), host.target("c1", &pod));
    host.fail("ADD");
    let error = host.runtime.add(&network, &target).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (123, "plugin other (ADD): as it was told"));
    assert_eq!(host.calls(), "ADD c1 eth0 IgnoreUnknown=1;A=b\nDEL c1 eth0 IgnoreUnknown=1;A=b\n");
    host.assert_clean(&pod);
    // A cache that cannot be written fails the ADD as well.
    fs::remove_file(host.dir.path().join("fail-ADD")).unwrap();
    fs::write(host.dir.path().join("cache"), "").unwrap();
    let error = host.runtime.add(&network, &target).unwrap_err();
    assert_eq!(error.code, code::IO);
    fs::remove_file(host.dir.path().join("cache")).unwrap();
    host.assert_clean(&pod);
}

#[test]
fn a_del_works_without_a_cache_and_with_a_corrupt_one() {
    let host = Host::new();
    let network = host.network(&json!({}));
    for content in
        [None, Some("{"), Some(r#"{"kind":"other"}"#), Some(r#"{"kind":"cniCacheV1","config":"!"}"#)]
    {
        let pod = host.node.pod();
        let target = host.target("c1", &pod);
        host.runtime.add(&network, &target).unwrap();
        let file = host.dir.path().join("cache/results/net-c1-eth0");
        match content {
            Some(content) => fs::write(&file, content).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        host.runtime.del(&network, &target).unwrap();
        host.assert_clean(&pod);
        assert!(!file.exists(), "{content:?}");
    }
}

#[test]
fn gc_deletes_what_is_not_valid_and_tells_the_plugins_what_is() {
    let host = Host::new();
    let network = host.network(&json!({}));
    let pods = [host.node.pod(), host.node.pod()];
    for (id, pod) in ["c1", "c2"].iter().zip(&pods) {
        let target = Target { capabilities: serde_json::Map::new(), ..host.target(id, pod) };
        host.runtime.add(&network, &target).unwrap();
    }
    let disabled = host.network(&json!({"disableGC": true}));
    assert!(host.runtime.gc(&disabled, &[]).unwrap().0.is_empty());
    host.calls();
    let valid = [ValidAttachment { container_id: "c2".into(), ifname: "eth0".into() }];
    let (deleted, errors) = host.runtime.gc(&network, &valid).unwrap();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(deleted.iter().map(|a| a.container_id.as_str()).collect::<Vec<_>>(), ["c1"]);
    assert_eq!(host.calls(), "DEL c1 eth0 IgnoreUnknown=1;A=b\nGC   \n");
    let list = json!([{"containerID": "c2", "ifname": "eth0"}]);
    assert_eq!(host.stdin("GC")["cni.dev/valid-attachments"], list);
    assert_eq!(host.node.allocations().len(), 1);
    assert!(
        host.runtime
            .check(&network, &Target { capabilities: Default::default(), ..host.target("c2", &pods[1]) })
            .is_ok()
    );
}

#[test]
fn status_and_check_follow_the_version_and_the_configuration() {
    let host = Host::new();
    let pod = host.node.pod();
    let network = |more: Value| host.network(&more);
    assert!(host.runtime.status(&network(json!({}))).unwrap());
    assert!(!host.runtime.status(&network(json!({"cniVersion": "1.0.0"}))).unwrap());
    host.fail("STATUS");
    assert_eq!(host.runtime.status(&network(json!({}))).unwrap_err().code, 123);
    let target = host.target("c1", &pod);
    assert!(!host.runtime.check(&network(json!({"disableCheck": true})), &target).unwrap());
    let old = host.runtime.check(&network(json!({"cniVersion": "0.3.1"})), &target).unwrap_err();
    assert_eq!(old.code, code::INCOMPATIBLE_VERSION);
}

#[test]
fn a_plugin_that_is_nowhere_is_told_by_name() {
    let host = Host::new();
    let pod = host.node.pod();
    let network =
        Network::parse(br#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"../other"}]}"#).unwrap();
    assert!(
        host.runtime
            .add(&network, &host.target("c1", &pod))
            .unwrap_err()
            .message
            .contains("is no plugin's name")
    );
    let network =
        Network::parse(br#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"none"}]}"#).unwrap();
    let error = host.runtime.add(&network, &host.target("c1", &pod)).unwrap_err();
    assert!(error.message.contains("\"none\""), "{error}");
    assert!(!Path::new("/var/lib/cni/results/n-c1-eth0").exists());
}
