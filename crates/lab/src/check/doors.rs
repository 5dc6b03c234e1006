//! The doors of Services, read from the API's lists.

use std::collections::HashMap;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde_json::Value;

use super::report::Skipped;
use super::world::{World, array, items, text};
use crate::oracle::Proto;
use crate::oracle::services::{Door, DoorKind, Endpoint};

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "/metadata/labels/kubernetes.io~1service-name";
/// The class, and the condition, of Services whose addresses are Weft's.
const CLASS: &str = "weft.dev/load-balancer";
const ASSIGNED: &str = "weft.dev/AddressesAssigned";
/// The label that hands a Service to another proxy.
const PROXY_NAME: &str = "/metadata/labels/service.kubernetes.io~1service-proxy-name";

impl World {
    /// Adds the Services, by the API's lists of them and of EndpointSlices. One whose endpoints are not the
    /// check's to know, as the API server's own, is not in it.
    pub fn add_services(&mut self, services: &Value, slices: &Value) {
        let named = self.members.iter().enumerate();
        let by_name: HashMap<String, usize> =
            named.map(|(place, member)| (member.party.name.clone(), place)).collect();
        for service in items(services) {
            let namespace = text(service, "/metadata/namespace");
            let name = format!("{namespace}/{}", text(service, "/metadata/name"));
            let skip = |why: &str| Skipped { name: format!("svc/{name}"), why: why.to_owned() };
            if service.pointer(PROXY_NAME).is_some() {
                self.skipped.push(skip("another proxy's, by its label"));
                continue;
            }
            if text(service, "/spec/type") == "ExternalName" {
                continue;
            }
            let of = |slice: &&Value| {
                text(slice, "/metadata/namespace") == namespace
                    && text(slice, SERVICE_NAME) == text(service, "/metadata/name")
            };
            let slices: Vec<&Value> = items(slices).iter().filter(of).collect();
            let mut doors = Vec::new();
            for port in array(service, "/spec/ports") {
                doors.extend(self.doors(&name, service, port, &slices, &by_name));
            }
            let known = doors.iter().all(Option::is_some);
            match known {
                true => self.doors.extend(doors.into_iter().flatten()),
                false => self.skipped.push(skip("its endpoints are not pods of the lab")),
            }
        }
        // Of Services that share an address, and do not agree, it depends on both who announces it.
        let all = self.doors.clone();
        for door in &mut self.doors {
            let shares = |other: &&Door| other.address == door.address && other.service != door.service;
            door.announced &= !all.iter().filter(shares).any(|other| other.local || door.local);
        }
    }

    /// The doors of one port; `None` stands for one with an endpoint that is no member.
    fn doors(
        &self,
        name: &str,
        service: &Value,
        port: &Value,
        slices: &[&Value],
        members: &HashMap<String, usize>,
    ) -> Vec<Option<Door>> {
        let proto = match port.get("protocol").and_then(Value::as_str).unwrap_or("TCP") {
            "TCP" => Proto::Tcp,
            "UDP" => Proto::Udp,
            _ => return Vec::new(),
        };
        let number = |key: &str| port.get(key).and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok());
        let local = |field: &str| text(service, field) == "Local";
        let cluster: Vec<IpAddr> = parsed(array(service, "/spec/clusterIPs"));
        let door = |kind, address: IpAddr, at, node: Option<&str>| {
            let policy = if kind == DoorKind::ClusterIp {
                "/spec/internalTrafficPolicy"
            } else {
                "/spec/externalTrafficPolicy"
            };
            Some(Door {
                service: name.to_owned(),
                kind,
                address,
                proto,
                port: at,
                node: node.map(str::to_owned),
                local: local(policy),
                ranges: Vec::new(),
                announced: false,
                endpoints: endpoints(slices, text(port, "/name"), proto, address, members)?,
            })
        };
        let ranges: Vec<IpNet> = parsed(array(service, "/spec/loadBalancerSourceRanges"));
        let mut doors = Vec::new();
        if let Some(at) = number("port") {
            doors.extend(cluster.iter().map(|ip| door(DoorKind::ClusterIp, *ip, at, None)));
            let external: Vec<IpAddr> = parsed(array(service, "/spec/externalIPs"));
            // Only those that are nobody's own: else the door is that one's node.
            let free = external.iter().filter(|ip| !self.nodes.iter().any(|n| n.internal.contains(ip)));
            doors.extend(free.map(|ip| door(DoorKind::External, *ip, at, None)));
            let balanced = ingress(service).into_iter().map(|ip| {
                let (ranges, announced) = (ranges.clone(), balanced_here(service));
                Some(Door { ranges, announced, ..door(DoorKind::External, ip, at, None)? })
            });
            doors.extend(balanced);
        }
        if let Some(at) = number("nodePort") {
            for node in &self.nodes {
                let served = |ip: &&IpAddr| cluster.iter().any(|c| c.is_ipv4() == ip.is_ipv4());
                let ips = node.internal.iter().filter(served);
                doors.extend(ips.map(|ip| door(DoorKind::External, *ip, at, Some(&node.name))));
            }
        }
        doors
    }
}

fn parsed<T: FromStr>(list: &[Value]) -> Vec<T> {
    list.iter().filter_map(Value::as_str).filter_map(|one| one.trim().parse().ok()).collect()
}

/// The addresses by which a load balancer leads to the nodes, without translating them.
fn ingress(service: &Value) -> Vec<IpAddr> {
    if text(service, "/spec/type") != "LoadBalancer" {
        return Vec::new();
    }
    let all = array(service, "/status/loadBalancer/ingress").iter();
    all.filter(|one| text(one, "/ipMode") != "Proxy")
        .filter_map(|one| text(one, "/ip").parse().ok())
        .collect()
}

/// Whether its addresses are Weft's to announce, and not those of another controller.
fn balanced_here(service: &Value) -> bool {
    let conditions = array(service, "/status/conditions").iter();
    text(service, "/spec/loadBalancerClass") == CLASS
        || conditions.map(|one| text(one, "/type")).any(|kind| kind == ASSIGNED)
}

fn endpoints(
    slices: &[&Value],
    port: &str,
    proto: Proto,
    like: IpAddr,
    members: &HashMap<String, usize>,
) -> Option<Vec<Endpoint>> {
    let family = if like.is_ipv4() { "IPv4" } else { "IPv6" };
    let mut found = Vec::new();
    for slice in slices.iter().filter(|slice| text(slice, "/addressType") == family) {
        let same = |p: &&Value| {
            let protocol = p.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
            text(p, "/name") == port && protocol.eq_ignore_ascii_case(proto.name())
        };
        if array(slice, "/ports").iter().find(same).is_none() {
            continue;
        }
        for endpoint in array(slice, "/endpoints") {
            let condition =
                |name: &str| endpoint.pointer(&format!("/conditions/{name}")).and_then(Value::as_bool);
            let ready = condition("ready").unwrap_or(true);
            let serving = condition("serving").unwrap_or(ready);
            let leaving = serving && condition("terminating").unwrap_or(false);
            if !ready && !leaving {
                continue;
            }
            let pod = format!("{}/{}", text(slice, "/metadata/namespace"), text(endpoint, "/targetRef/name"));
            found.push(Endpoint { party: *members.get(&pod)?, ready, leaving });
        }
    }
    Some(found)
}
