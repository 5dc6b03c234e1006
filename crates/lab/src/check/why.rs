use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::world::{Member, World};

/// What is known of things that keep probes from being answered.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    /// By node and peer: why the node has not programmed the peer.
    refused: HashMap<(String, String), String>,
    /// By node: what is wrong with its agent.
    agents: HashMap<String, String>,
}

impl Reasons {
    /// From the agents' status files; a file that cannot be read is a reason by itself.
    pub(super) fn read(world: &World, state: &Path) -> Reasons {
        let mut reasons = Reasons::default();
        for node in &world.nodes {
            let path = state.join("node").join(&node.name).join("agent/status.json");
            let status = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
            reasons.add(&node.name, status.as_ref());
        }
        reasons
    }

    fn add(&mut self, node: &str, status: Option<&Value>) {
        let Some(status) = status else {
            self.agents.insert(node.to_owned(), "its agent has written no status".into());
            return;
        };
        if status.get("ready").and_then(Value::as_bool) == Some(false) {
            self.agents.insert(node.to_owned(), "its agent is not ready".into());
        }
        for peer in status.get("peers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice) {
            let text = |key: &str| peer.get(key).and_then(Value::as_str).unwrap_or_default();
            if peer.get("programmed").and_then(Value::as_bool) == Some(false) {
                self.refused.insert((node.to_owned(), text("node").to_owned()), text("reason").to_owned());
            }
        }
    }

    /// Why a probe between these two may have failed, as far as anything said so.
    pub(super) fn between(&self, from: &Member, to: &Member) -> String {
        for member in [from, to] {
            if let Some(reason) = &member.not_ready {
                return format!("{} is not ready: {reason}", member.party.name);
            }
        }
        let (a, b) = (&from.party.node, &to.party.node);
        for (node, peer) in [(a, b), (b, a)] {
            if let Some(reason) = self.refused.get(&(node.clone(), peer.clone())) {
                return format!("{node} refused peer {peer}: {reason}");
            }
        }
        for node in [a, b] {
            if let Some(reason) = self.agents.get(node) {
                return format!("{node}: {reason}");
            }
        }
        format!(
            "nothing reported a cause; weft trace {} {} shows where it ends",
            from.party.name, to.party.name
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::check::tests::world;

    #[test]
    fn the_nearest_cause_is_given() {
        let mut world = world();
        let mut reasons = Reasons::default();
        reasons.add(
            "node1",
            Some(&json!({"ready": true, "peers": [
            {"node": "node2", "programmed": false, "reason": "not on the same segment"}]})),
        );
        reasons.add("node2", None);
        let between =
            |world: &World, a: usize, b: usize| reasons.between(&world.members[a], &world.members[b]);
        assert_eq!(between(&world, 2, 0), "node1 refused peer node2: not on the same segment");
        assert_eq!(between(&world, 2, 2), "node2: its agent has written no status");
        assert!(between(&world, 0, 0).contains("weft trace"));
        world.members[1].not_ready = Some("no address".into());
        assert_eq!(between(&world, 0, 1), "default/b is not ready: no address");
    }
}
