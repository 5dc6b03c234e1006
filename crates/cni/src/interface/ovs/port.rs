//! Ports in the database: what the rows of a container's port say, and how they are found again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::interface::ovs::keys::{Vlans, Wanted};
use crate::interface::ovs::ovsdb::Ovsdb;
use crate::interface::pod;
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::Call;

/// Marks of a port among its `external_ids`: those by which the KubeVirt plugin finds its own,
/// and two by which GC does.
const NETNS: &str = "contNetns";
const INTERFACE: &str = "contIface";
const POD_UID: &str = "contPodUid";
const OWNER: (&str, &str) = ("owner", "ovs-cni.network.kubevirt.io");
const NETWORK: &str = "weft-cni-network";
const CONTAINER: &str = "weft-cni-container";

/// A port as the database has it.
#[derive(Debug)]
pub(super) struct Port {
    uuid: Value,
    pub(super) name: String,
    pub(super) vlans: Vlans,
    marks: BTreeMap<String, String>,
}

/// The bridge is there.
pub(super) fn require_bridge(db: &mut Ovsdb, bridge: &str, code: u32) -> Result<(), CniError> {
    let found = rows(db, "Bridge", json!([["name", "==", bridge]]), &["name"])?;
    if found.is_empty() {
        let message =
            format!("bridge: Open vSwitch has no bridge {bridge}: make it (ovs-vsctl add-br {bridge})");
        return Err(CniError::new(code, message));
    }
    Ok(())
}

/// Makes the port of the link `host_link` in the bridge, in one transaction.
pub(super) fn add(db: &mut Ovsdb, call: &Call, wanted: &Wanted, host_link: &str) -> Result<(), CniError> {
    let mut interface = Map::from_iter([("name".to_owned(), json!(host_link))]);
    interface.extend(wanted.interface_type.as_ref().map(|kind| ("type".to_owned(), json!(kind))));
    interface.extend(wanted.port_number.map(|number| ("ofport_request".to_owned(), json!(number))));
    interface.extend(
        wanted.ovn_port.as_ref().map(|port| ("external_ids".to_owned(), map([("iface-id", port.as_str())]))),
    );
    let sandbox = pod::sandbox(call).unwrap_or_default();
    let mut marks = vec![
        (NETNS, sandbox.as_str()),
        (INTERFACE, call.args.ifname.as_str()),
        OWNER,
        (NETWORK, call.conf.network()?),
        (CONTAINER, call.args.container_id.as_str()),
    ];
    marks.extend(call.args.extra.pod_uid.as_deref().map(|uid| (POD_UID, uid)));
    let mut port = json!({
        "name": host_link,
        "interfaces": ["named-uuid", "interface"],
        "external_ids": map(marks),
    });
    match &wanted.vlans {
        Vlans::All => {}
        Vlans::Access(id) => (port["vlan_mode"], port["tag"]) = (json!("access"), json!(id)),
        Vlans::Trunk(ids) => (port["vlan_mode"], port["trunks"]) = (json!("trunk"), json!(["set", ids])),
    }
    let bridge = json!([["name", "==", wanted.bridge]]);
    db.transact(&[
        // Without it the rows would be made, and swept away as nobody's.
        json!({"op": "wait", "table": "Bridge", "timeout": 0, "where": bridge, "columns": ["name"],
               "until": "==", "rows": [{"name": wanted.bridge}]}),
        json!({"op": "insert", "table": "Interface", "uuid-name": "interface", "row": interface}),
        json!({"op": "insert", "table": "Port", "uuid-name": "port", "row": port}),
        json!({"op": "mutate", "table": "Bridge", "where": bridge,
               "mutations": [["ports", "insert", ["named-uuid", "port"]]]}),
    ])?;
    Ok(())
}

/// Waits until Open vSwitch forwards on the port of this link.
pub(super) fn wait_up(db: &mut Ovsdb, host_link: &str, patience: Duration) -> Result<(), CniError> {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    loop {
        let columns = ["ofport", "link_state", "error"];
        let found = rows(db, "Interface", json!([["name", "==", host_link]]), &columns)?;
        let failed = |reason: &str| {
            CniError::new(code::TRY_AGAIN, format!("Open vSwitch: port {host_link}: {reason}"))
        };
        let row = found.first().ok_or_else(|| failed("it was removed while it was made"))?;
        match (row["ofport"].as_i64(), row["error"].as_str()) {
            (_, Some(reason)) if !reason.is_empty() => return Err(failed(reason)),
            (Some(number), _) if number > 0 && row["link_state"] == "up" => return Ok(()),
            (Some(number), _) if number < 0 => return Err(failed("it cannot be used")),
            _ if Instant::now() >= deadline => {
                return Err(failed("it does not come up; is ovs-vswitchd running?"));
            }
            _ => {}
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The ports of an attachment: by the name of our link, and by the marks for what the KubeVirt
/// plugin made.
pub(super) fn of_attachment(db: &mut Ovsdb, call: &Call, host_link: &str) -> Result<Vec<Port>, CniError> {
    let mut found = ports(db, json!([["name", "==", host_link]]))?;
    if let Some(sandbox) = pod::sandbox(call) {
        let marks = map([(NETNS, sandbox.as_str()), (INTERFACE, call.args.ifname.as_str())]);
        let marked = ports(db, json!([["external_ids", "includes", marks]]))?;
        let ours = |port: &Port| {
            let container = port.marks.get(CONTAINER);
            container.is_none_or(|container| *container == call.args.container_id)
        };
        found.extend(marked.into_iter().filter(|port| port.name != host_link && ours(port)));
    }
    Ok(found)
}

/// The ports that ours made for a network and that belong to none of the attachments.
pub(super) fn left_over(db: &mut Ovsdb, call: &Call) -> Result<Vec<Port>, CniError> {
    let valid = call.conf.valid_attachments.as_ref();
    let valid = valid.ok_or_else(|| invalid("cni.dev/valid-attachments is missing: nothing was removed"))?;
    let marks = map([(NETWORK, call.conf.network()?)]);
    let mut found = ports(db, json!([["external_ids", "includes", marks]]))?;
    found.retain(|port| {
        let mark = |key: &str| port.marks.get(key).map(String::as_str).unwrap_or_default();
        !valid.iter().any(|a| a.container_id == mark(CONTAINER) && a.ifname == mark(INTERFACE))
    });
    Ok(found)
}

/// Whether a port is in the bridge.
pub(super) fn is_in(db: &mut Ovsdb, port: &Port, bridge: &str) -> Result<bool, CniError> {
    let bridges = json!([["name", "==", bridge], ["ports", "includes", port.uuid]]);
    Ok(!rows(db, "Bridge", bridges, &["name"])?.is_empty())
}

/// Takes ports out of their bridges, and with that out of the database.
pub(super) fn remove(db: &mut Ovsdb, ports: &[Port]) -> Result<(), CniError> {
    if ports.is_empty() {
        return Ok(());
    }
    let one = |port: &Port| {
        json!({"op": "mutate", "table": "Bridge", "where": [["ports", "includes", port.uuid]],
               "mutations": [["ports", "delete", port.uuid]]})
    };
    db.transact(&ports.iter().map(one).collect::<Vec<Value>>()).map(drop)
}

fn ports(db: &mut Ovsdb, which: Value) -> Result<Vec<Port>, CniError> {
    let columns = ["_uuid", "name", "tag", "trunks", "external_ids"];
    Ok(rows(db, "Port", which, &columns)?.iter().map(port).collect())
}

fn rows(db: &mut Ovsdb, table: &str, which: Value, columns: &[&str]) -> Result<Vec<Value>, CniError> {
    let select = json!({"op": "select", "table": table, "where": which, "columns": columns});
    let mut results = db.transact(&[select])?;
    match results.pop().map(|mut result| result["rows"].take()) {
        Some(Value::Array(rows)) => Ok(rows),
        _ => Err(CniError::new(code::IO, format!("Open vSwitch database: no rows of {table} in its answer"))),
    }
}

fn port(row: &Value) -> Port {
    let trunks: BTreeSet<u16> = set(&row["trunks"]).iter().filter_map(small).collect();
    let tag = set(&row["tag"]).first().and_then(small);
    let vlans = match tag {
        Some(tag) => Vlans::Access(tag),
        None if trunks.is_empty() => Vlans::All,
        None => Vlans::Trunk(trunks),
    };
    let pairs = row["external_ids"][1].as_array().into_iter().flatten();
    let pair = |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned()));
    Port {
        uuid: row["_uuid"].clone(),
        name: row["name"].as_str().unwrap_or_default().to_owned(),
        vlans,
        marks: pairs.filter_map(pair).collect(),
    }
}

fn small(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

/// A set of one is written as its member.
fn set(value: &Value) -> Vec<Value> {
    match value.as_array() {
        Some(pair) if pair.first().is_some_and(|kind| kind == "set") => {
            pair.get(1).and_then(Value::as_array).cloned().unwrap_or_default()
        }
        Some(_) => Vec::new(),
        None if value.is_null() => Vec::new(),
        None => vec![value.clone()],
    }
}

fn map<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
    json!(["map", pairs.into_iter().map(|(key, value)| [key, value]).collect::<Vec<_>>()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_its_vlans_in_several_forms() {
        let of = |row: Value| port(&row).vlans;
        assert_eq!(of(json!({"tag": 5, "trunks": ["set", []]})), Vlans::Access(5));
        assert_eq!(of(json!({"tag": ["set", []], "trunks": 7})), Vlans::Trunk([7].into()));
        assert_eq!(of(json!({"trunks": ["set", [7, 8]]})), Vlans::Trunk([7, 8].into()));
        assert_eq!(of(json!({"tag": ["set", []]})), Vlans::All);
        for odd in
            [json!(null), json!({"tag": "x", "trunks": [1]}), json!({"tag": -1, "external_ids": ["map"]})]
        {
            assert_eq!(of(odd), Vlans::All);
        }
        let marked = port(&json!({"external_ids": ["map", [["a", "b"], ["c"], 4]]}));
        assert_eq!(marked.marks, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    }
}
