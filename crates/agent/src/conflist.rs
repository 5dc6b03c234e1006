//! The network configuration that the container runtime reads.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weft_fabric::LocalPlan;
use weft_model::mark;

/// Its name in the runtime's folder: of several the first by name is taken.
pub(crate) const FILE: &str = "10-weft.conflist";

pub(crate) fn path(conf_dir: &Path) -> PathBuf {
    conf_dir.join(FILE)
}

/// The text for pods of this node. `data_dir` is where `host-local` keeps its allocations,
/// `records` where `weft-cni` tells of containers that may be no pods of the API.
pub(crate) fn render(plan: &LocalPlan, data_dir: &Path, records: &Path) -> String {
    let interface =
        if plan.routed { routed(plan, data_dir, records) } else { bridge(plan, data_dir, records) };
    // Published ports: what podman's -p and hostPort through CRI ask for. One backend for both families,
    // in a table of its own.
    let portmap = json!({
        "type": "portmap",
        "backend": "nftables",
        "capabilities": { "portMappings": true },
    });
    // The annotations kubernetes.io/ingress-bandwidth and egress-bandwidth, as runtimes hand them on.
    let bandwidth = json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } });
    // A runtime that knows no cniVersions may know no 1.1.0 either, as podman 4.
    let list = json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["1.0.0", "1.1.0"],
        "name": mark::CNI_NETWORK,
        "plugins": [interface, portmap, bandwidth],
    });
    format!("{list:#}\n")
}

/// Each pod behind a route of its own; out of pools with what its annotations ask for.
fn routed(plan: &LocalPlan, data_dir: &Path, records: &Path) -> Value {
    if !plan.pools {
        return json!({
            "type": "routed",
            "mtu": plan.bridge.mtu,
            "ipam": host_local(plan, data_dir),
            "weft": { "records": records },
        });
    }
    json!({
        "type": "routed",
        "mtu": plan.bridge.mtu,
        "capabilities": { "io.kubernetes.cri.pod-annotations": true },
        "ipam": { "type": "pools", "dataDir": data_dir },
        "weft": { "records": records },
    })
}

fn host_local(plan: &LocalPlan, data_dir: &Path) -> Value {
    let ranges: Vec<Value> = plan.pod_cidrs.iter().map(|cidr| json!([{ "subnet": cidr }])).collect();
    json!({ "type": "host-local", "ranges": ranges, "dataDir": data_dir })
}

fn bridge(plan: &LocalPlan, data_dir: &Path, records: &Path) -> Value {
    json!({
        "type": "bridge",
        "bridge": mark::BRIDGE,
        "isGateway": true,
        "isDefaultGateway": true,
        "hairpinMode": true,
        "mtu": plan.bridge.mtu,
        "ipam": host_local(plan, data_dir),
        "weft": { "records": records },
    })
}
