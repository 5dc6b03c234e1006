//! Where cluster IPs come from.

use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::controllers::events;
use crate::kinds::{EVENTS, SERVICES};
use crate::registry::Registry;

/// As kube-apiserver has it: 20 bits of addresses are enough for all Services.
const MOST_BITS: u8 = 20;
/// Of fewer than 8 addresses little is left for Services.
const LEAST_BITS: u8 = 3;

/// The ranges that are asked for, or those of the families that pods have; the first family is the default.
pub(super) fn choose(asked: &[IpNet], cluster_cidrs: &[IpNet]) -> Result<Vec<IpNet>, String> {
    if !asked.is_empty() {
        return check(asked).map(|()| asked.to_vec());
    }
    let v4 = IpNet::V4(Ipv4Net::new_assert([10, 96, 0, 0].into(), 16));
    let v6 = IpNet::V6(Ipv6Net::new_assert([0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0].into(), 112));
    let mut ranges = Vec::new();
    for cidr in cluster_cidrs {
        let own = if cidr.addr().is_ipv4() { v4 } else { v6 };
        if !ranges.contains(&own) {
            ranges.push(own);
        }
    }
    if ranges.is_empty() {
        ranges.push(v4);
    }
    Ok(ranges)
}

/// What kube-apiserver refuses, in its words.
fn check(ranges: &[IpNet]) -> Result<(), String> {
    if ranges.len() > 2 {
        return Err("--service-cluster-ip-range must not contain more than two entries".to_owned());
    }
    for (index, range) in ranges.iter().enumerate() {
        let flag = if index == 0 { "--service-cluster-ip-range" } else { "--service-cluster-ip-range[1]" };
        let bits = range.max_prefix_len() - range.prefix_len();
        if bits > MOST_BITS {
            let (all, least) = (range.max_prefix_len(), range.max_prefix_len() - MOST_BITS);
            return Err(format!(
                "specified {flag} is too large; for {all}-bit addresses, the mask must be >= {least}"
            ));
        }
        if bits < LEAST_BITS {
            return Err(format!("{flag}: the service cluster IP range must be at least 8 IP addresses"));
        }
    }
    match ranges {
        [first, second] if first.addr().is_ipv4() == second.addr().is_ipv4() => {
            let rule = "--service-cluster-ip-range[0] and --service-cluster-ip-range[1] must be of different IP family";
            Err(rule.to_owned())
        }
        _ => Ok(()),
    }
}

/// The first address of a range, by custom the API's.
pub(super) fn first(range: &IpNet) -> Option<IpAddr> {
    match range {
        IpNet::V4(range) => range.hosts().next().map(IpAddr::V4),
        // Of IPv6 the network's own address is among them.
        IpNet::V6(range) => range.hosts().nth(1).map(IpAddr::V6),
    }
}

/// The address of the Service `kubernetes`: of the first range, unless the API server has addresses of the other
/// family alone, where the Service would lead to nobody.
pub(super) fn api_service_ip(ranges: &[IpNet], advertised: &[SocketAddr]) -> Option<IpAddr> {
    let leads = |range: &&IpNet| advertised.iter().any(|at| at.is_ipv4() == range.addr().is_ipv4());
    ranges.iter().find(leads).or(ranges.first()).and_then(first)
}

/// Tells of Services whose cluster IPs are in none of the ranges, as kube-apiserver does; they are served on.
pub(super) async fn report(registry: Registry) {
    let ranges = registry.context.service_cidrs.clone();
    let now = crate::strategy::now();
    for service in registry.list(&SERVICES, None).0 {
        let ips = service["spec"]["clusterIPs"].as_array().into_iter().flatten();
        let ips = ips.filter_map(|ip| ip.as_str()?.parse::<IpAddr>().ok());
        for ip in ips.filter(|ip| !ranges.iter().any(|range| range.contains(ip))) {
            let meta = &service["metadata"];
            let [namespace, name] = ["namespace", "name"].map(|key| meta[key].as_str().unwrap_or_default());
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let message = format!(
                "Cluster IP [{family}]: {ip} is not within any configured Service CIDR; please recreate service"
            );
            tracing::warn!("Service {namespace}/{name}: {message}");
            let event = events::body(&service, "Service", "Warning", "ClusterIPOutOfRange", &message, &now);
            if let Err(error) = registry.create(&EVENTS, Some(namespace), event).await {
                tracing::debug!("{error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::registry::RegistryConfig;

    fn cidrs(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn ranges_that_kube_apiserver_refuses_are_refused() {
        for (asked, word) in [
            (&["10.0.0.0/8"][..], "the mask must be >= 12"),
            (&["fd00::/64"], "the mask must be >= 108"),
            (&["10.0.0.0/30"], "at least 8"),
            (&["10.0.0.0/16", "10.1.0.0/16"], "different IP family"),
            (&["10.0.0.0/16", "fd00::/64"], "[1] is too large"),
            (&["10.0.0.0/16", "fd00::/112", "10.1.0.0/16"], "more than two"),
        ] {
            let error = choose(&cidrs(asked), &[]).unwrap_err();
            assert!(error.contains(word), "{asked:?}: {error}");
        }
        assert_eq!(choose(&cidrs(&["fd00::/112", "10.0.0.0/12"]), &[]).unwrap().len(), 2);
    }

    #[test]
    fn what_is_not_asked_for_follows_the_pods_and_the_api_is_where_it_is_reached() {
        let ranges = choose(&[], &cidrs(&["fd00:244::/48", "10.244.0.0/16"])).unwrap();
        assert_eq!(ranges, cidrs(&["fd00:10:96::/112", "10.96.0.0/16"]));
        let at = |text: &str| vec![text.parse().unwrap()];
        let first = |advertised: &[SocketAddr]| api_service_ip(&ranges, advertised).unwrap().to_string();
        assert_eq!(first(&at("[2001:db8::1]:6443")), "fd00:10:96::1");
        assert_eq!(first(&at("192.0.2.1:6443")), "10.96.0.1", "there it leads somewhere");
        assert_eq!(first(&[]), "fd00:10:96::1");
    }

    #[tokio::test]
    async fn services_of_another_range_are_told_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let open = async |range: &str| {
            // The thread of the one before may still let go of the file.
            loop {
                match Registry::open(folder.path(), RegistryConfig { service_cidrs: cidrs(&[range]) }).await {
                    Err(crate::storage::StorageError::InUse { .. }) => tokio::task::yield_now().await,
                    opened => return opened.unwrap(),
                }
            }
        };
        let registry = open("10.1.0.0/16").await;
        let service = json!({"metadata": {"name": "old"}, "spec": {"ports": [{"port": 80}]}});
        let old = registry.create(&SERVICES, Some("default"), service).await.unwrap();
        drop(registry);
        let registry = open("10.2.0.0/16").await;
        report(registry.clone()).await;
        let events = registry.list(&EVENTS, None).0;
        assert_eq!((events.len(), &events[0]["reason"]), (1, &json!("ClusterIPOutOfRange")));
        let change = |service: &mut Value| {
            service["metadata"]["labels"] = json!({"a": "b"});
            Ok(())
        };
        let part = crate::registry::Part::Whole;
        let kept = registry.modify(&SERVICES, Some("default"), "old", part, change).await.unwrap();
        assert_eq!(kept["spec"]["clusterIP"], old["spec"]["clusterIP"]);
        let service = json!({"metadata": {"name": "new"}, "spec": {"ports": [{"port": 80}]}});
        let new = registry.create(&SERVICES, Some("default"), service).await.unwrap();
        assert!(new["spec"]["clusterIP"].as_str().unwrap().starts_with("10.2."));
    }
}
