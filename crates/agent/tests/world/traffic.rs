//! Changes made while the traffic of [`Probes`] runs.

use std::net::IpAddr;

use weft_kernel::testing::eventually;
use weft_model::Cluster;

use super::probes::{Probes, Report};
use super::{Running, SOON, World};

/// Traffic from the pod of the first node to that of the second, in each family.
fn traffic(world: &World) -> Vec<(IpAddr, Probes)> {
    let (near, far) = (&world.nodes[0].pod, &world.nodes[1].pod);
    let start = |ip: IpAddr| {
        eventually(SOON, "the pod is reached", || world.reaches(0, &ip.to_string()));
        (ip, Probes::start(near, far, ip))
    };
    world.pod_ips(1).into_iter().map(start).collect()
}

fn ends(probes: Vec<(IpAddr, Probes)>) -> Vec<(IpAddr, Report)> {
    probes.into_iter().map(|(ip, probes)| (ip, probes.end())).collect()
}

/// Makes `change` under traffic and reports what that met with; the change is over when it returns.
pub fn under_traffic(world: &World, what: &str, change: impl FnOnce()) -> Vec<(IpAddr, Report)> {
    let probes = traffic(world);
    probes.iter().for_each(|(_, probes)| probes.carries());
    change();
    probes.iter().for_each(|(_, probes)| probes.carries());
    let reports = ends(probes);
    for (ip, report) in &reports {
        println!("{}, to {ip}, {what}: {report:?}", world.backend);
    }
    reports
}

/// The same; nothing may be lost, refused or sent again.
pub fn loses_nothing(world: &World, what: &str, change: impl FnOnce()) {
    for (ip, report) in under_traffic(world, what, change) {
        assert!(report.is_whole(), "{}, to {ip}, {what}: {report:?}", world.backend);
    }
}

/// Gives all agents one view.
pub fn tell_all(agents: &[Running], cluster: &Cluster) {
    agents.iter().for_each(|agent| agent.tell(cluster.clone()));
}

/// Waits until all agents see their kernels as planned.
pub fn settle(agents: &[Running]) {
    agents.iter().for_each(Running::settled);
}
