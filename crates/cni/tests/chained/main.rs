//! Chained plugins behind a bridge: what they do to the kernel, beside the reference's, with real
//! packets; each side deletes and checks what the other made.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

#[path = "../common/mod.rs"]
mod common;

mod bandwidth;
mod sbr;
mod static_;
mod tuning;
mod vrf;

use common::{Answer, Call, Node, path};
use serde_json::{Value, json};
use weft_kernel::{Link, Netlink, Netns};

/// One container on the bridge of a node.
struct Pod {
    netns: Netns,
    id: &'static str,
    /// What the last plugin of the chain answered.
    result: Value,
}

impl Pod {
    fn new(node: &Node, id: &'static str, subnets: &[&str]) -> Pod {
        let netns = node.pod();
        let result = node.add(id, &netns, &node.config(subnets)).success();
        Pod { netns, id, result }
    }

    /// A call of the chained plugin `keys` behind what was answered last.
    fn call(&self, command: &str, keys: &Value, ours: bool) -> Answer {
        let mut config = json!({"cniVersion": "1.0.0", "name": "net", "prevResult": self.result});
        for (key, value) in keys.as_object().unwrap() {
            config[key] = value.clone();
        }
        let call = Call::new(command, self.id, Some(&path(&self.netns)), &config);
        if ours { call.run() } else { call.reference().run() }
    }

    fn add(&mut self, keys: &Value, ours: bool) {
        self.result = self.call("ADD", keys, ours).success();
    }

    fn link(&self, name: &str) -> Link {
        Netlink::open_in(&self.netns).unwrap().link(name).unwrap().unwrap()
    }

    /// The host's end of its interface.
    fn host_end(&self) -> Link {
        let index = self.link("eth0").peer.unwrap();
        Netlink::open().unwrap().link_by_index(index).unwrap().unwrap()
    }
}
