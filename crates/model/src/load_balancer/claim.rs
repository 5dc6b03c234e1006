//! What a Service asks for and what it has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{CLASS, CONDITION, Metadata, Verdict};
use crate::NamespacedName;
use crate::pools::Labels;
use crate::service::{Protocol, ServiceKey, ServiceType};

/// The most addresses that an annotation is read for.
const WISHES: usize = 16;

/// A Service (core/v1 Service), as far as its load balancer's addresses go.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Namespace and name.
    pub key: ServiceKey,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`: what is written back compares it.
    pub version: Arc<str>,
    /// `metadata.creationTimestamp`, whose order is that of time.
    pub created: Arc<str>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.type` is LoadBalancer.
    pub balanced: bool,
    /// `spec.loadBalancerClass`.
    pub class: Option<Arc<str>>,
    /// `spec.ipFamilies`: whether it is IPv4, for each.
    pub families: Vec<bool>,
    /// `spec.ipFamilyPolicy` is PreferDualStack: one family is enough.
    pub one_is_enough: bool,
    /// What it asks for, or in one sentence why that makes no sense.
    pub request: Result<Request, String>,
    /// With whom it would share an address.
    pub share: Share,
    /// `status.loadBalancer.ingress`.
    pub held: Vec<Held>,
    /// `status.conditions`, as they are.
    pub conditions: Value,
}

/// What a Service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// These addresses, at most one a family.
    pub ips: Vec<IpAddr>,
    /// An address of this pool.
    pub pool: Option<Arc<str>>,
}

/// What decides whether two Services may have one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// The same for both.
    pub key: Option<Arc<str>>,
    /// `spec.ports`, different.
    pub ports: BTreeSet<(Protocol, u16)>,
    /// `spec.externalTrafficPolicy` is Local: then the same pods.
    pub local: bool,
    /// `spec.selector`.
    pub selector: BTreeMap<Arc<str>, Arc<str>>,
}

/// One entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// `ip`; none where it is a name or no address.
    pub ip: Option<IpAddr>,
    /// `ipMode` is not Proxy.
    pub vip: bool,
}

impl Claim {
    /// The condition of ours, if it has one.
    pub fn verdict(&self) -> Option<Verdict> {
        let conditions = self.conditions.as_array().into_iter().flatten();
        let ours = conditions.into_iter().find(|condition| condition["type"] == CONDITION)?;
        let verdict = Verdict::deserialize(ours).unwrap_or_default();
        Some(Verdict { good: ours["status"] == "True", ..verdict })
    }

    /// Whether it may be given addresses by us.
    pub fn is_ours(&self) -> bool {
        self.balanced && self.class.as_deref().is_none_or(|class| class == CLASS)
    }

    /// Whether addresses may have to do with it: others need not be looked at.
    pub fn matters(&self) -> bool {
        self.balanced || !self.held.is_empty() || self.verdict().is_some()
    }

    /// The addresses that it has.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.held.iter().filter_map(|held| held.ip)
    }
}

impl Share {
    /// Whether two Services may have one address: the same key, different ports, and wherever the address is
    /// announced from, pods of both behind it.
    pub fn with(&self, other: &Share) -> bool {
        let same_pods = !self.selector.is_empty() && self.selector == other.selector;
        self.key.is_some()
            && self.key == other.key
            && self.ports.is_disjoint(&other.ports)
            && (same_pods || !self.local && !other.local)
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: Tagged,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Tagged {
    #[serde(flatten)]
    meta: Metadata,
    #[serde(default)]
    namespace: Arc<str>,
    #[serde(default)]
    labels: Option<Labels>,
    #[serde(default)]
    annotations: Option<Annotations>,
}

/// The annotations that say something here, ours first; those of others mean what they mean there.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "weft.dev/load-balancer-ips")]
    ips: Option<String>,
    #[serde(rename = "metallb.io/loadBalancerIPs")]
    metallb_ips: Option<String>,
    #[serde(rename = "metallb.universe.tf/loadBalancerIPs")]
    old_metallb_ips: Option<String>,
    #[serde(rename = "lbipam.cilium.io/ips")]
    cilium_ips: Option<String>,
    #[serde(rename = "io.cilium/lb-ipam-ips")]
    old_cilium_ips: Option<String>,
    #[serde(rename = "kube-vip.io/loadbalancerIPs")]
    kube_vip_ips: Option<String>,
    #[serde(rename = "weft.dev/load-balancer-pool")]
    pool: Option<Arc<str>>,
    #[serde(rename = "metallb.io/address-pool")]
    metallb_pool: Option<Arc<str>>,
    #[serde(rename = "metallb.universe.tf/address-pool")]
    old_metallb_pool: Option<Arc<str>>,
    #[serde(rename = "weft.dev/allow-shared-ip")]
    share: Option<Arc<str>>,
    #[serde(rename = "metallb.io/allow-shared-ip")]
    metallb_share: Option<Arc<str>>,
    #[serde(rename = "metallb.universe.tf/allow-shared-ip")]
    old_metallb_share: Option<Arc<str>>,
    #[serde(rename = "lbipam.cilium.io/sharing-key")]
    cilium_share: Option<Arc<str>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(rename = "type")]
    kind: Option<ServiceType>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    ip_families: Option<Vec<String>>,
    ip_family_policy: Option<String>,
    load_balancer_class: Option<Arc<str>>,
    #[serde(rename = "loadBalancerIP")]
    load_balancer_ip: Option<String>,
    external_traffic_policy: Option<String>,
    selector: Option<BTreeMap<Arc<str>, Arc<str>>>,
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
struct Port {
    protocol: Option<Protocol>,
    port: u16,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    load_balancer: Option<LoadBalancer>,
    conditions: Value,
}

#[derive(Deserialize)]
struct LoadBalancer {
    ingress: Option<Vec<Ingress>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ingress {
    ip: Option<String>,
    ip_mode: Option<String>,
}

impl Claim {
    /// Reads the object; the error says what makes no sense of it.
    pub fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Wire { metadata: Tagged { meta, namespace, labels, annotations }, spec, status } =
            Wire::deserialize(from)?;
        let annotations = annotations.unwrap_or_default();
        let families = families(&spec);
        let ingress = status.load_balancer.and_then(|balancer| balancer.ingress).unwrap_or_default();
        let held = ingress.into_iter().map(|entry| Held {
            ip: entry.ip.and_then(|ip| ip.parse().ok()),
            vip: entry.ip_mode.as_deref() != Some("Proxy"),
        });
        let ports = spec.ports.iter().flatten().map(|port| (port.protocol.unwrap_or_default(), port.port));
        Ok(Claim {
            key: NamespacedName::new(namespace, meta.name),
            uid: meta.uid,
            version: meta.resource_version,
            created: meta.creation_timestamp.unwrap_or_default(),
            labels: labels.unwrap_or_default(),
            balanced: spec.kind == Some(ServiceType::LoadBalancer),
            class: spec.load_balancer_class.filter(|class| !class.is_empty()),
            request: annotations.request(spec.load_balancer_ip.as_deref(), &families),
            families,
            one_is_enough: spec.ip_family_policy.as_deref() == Some("PreferDualStack"),
            share: Share {
                key: annotations.sharing(),
                ports: ports.collect(),
                local: spec.external_traffic_policy.as_deref() == Some("Local"),
                selector: spec.selector.unwrap_or_default(),
            },
            held: held.collect(),
            conditions: status.conditions,
        })
    }
}

fn families(spec: &Spec) -> Vec<bool> {
    let named = spec.ip_families.iter().flatten().map(|family| family == "IPv4");
    let mut families: Vec<bool> = named.collect();
    if families.is_empty() {
        let ips = spec.cluster_ips.iter().flatten().filter_map(|ip| ip.parse().ok());
        families.extend(ips.map(|ip: IpAddr| ip.is_ipv4()));
    }
    families.truncate(2);
    families.dedup();
    families
}

impl Annotations {
    fn request(&self, field: Option<&str>, families: &[bool]) -> Result<Request, String> {
        let asked = [
            ("weft.dev/load-balancer-ips", self.ips.as_deref()),
            ("metallb.io/loadBalancerIPs", self.metallb_ips.as_deref()),
            ("metallb.universe.tf/loadBalancerIPs", self.old_metallb_ips.as_deref()),
            ("lbipam.cilium.io/ips", self.cilium_ips.as_deref()),
            ("io.cilium/lb-ipam-ips", self.old_cilium_ips.as_deref()),
            ("kube-vip.io/loadbalancerIPs", self.kube_vip_ips.as_deref()),
            ("spec.loadBalancerIP", field),
        ];
        let mut request = Request { ips: Vec::new(), pool: self.pool() };
        let mut first = None;
        for (name, text) in asked {
            let Some(text) = text.filter(|text| !text.trim().is_empty()) else { continue };
            let ips = addresses(name, text)?;
            if first.is_some_and(|_| ips != request.ips) {
                let first: &str = first.unwrap_or_default();
                return Err(format!("{first} and {name} ask for different addresses; keep one of them"));
            }
            first = Some(name);
            request.ips = ips;
        }
        if let Some(ip) = request.ips.iter().find(|ip| !families.contains(&ip.is_ipv4())) {
            return Err(format!(
                "{ip} is of a family that the Service does not have; add it to spec.ipFamilies"
            ));
        }
        Ok(request)
    }

    fn pool(&self) -> Option<Arc<str>> {
        let all = [&self.pool, &self.metallb_pool, &self.old_metallb_pool];
        all.into_iter().flatten().find(|name| !name.is_empty()).cloned()
    }

    fn sharing(&self) -> Option<Arc<str>> {
        let all = [&self.share, &self.metallb_share, &self.old_metallb_share, &self.cilium_share];
        all.into_iter().flatten().find(|key| !key.is_empty()).cloned()
    }
}

/// Addresses with commas between them, at most one a family, IPv4 first.
fn addresses(name: &str, text: &str) -> Result<Vec<IpAddr>, String> {
    let mut ips = Vec::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()).take(WISHES) {
        let word: String = word.chars().take(64).collect();
        ips.push(word.parse().map_err(|_| format!("{name}: {word:?} is no IP address; correct it"))?);
    }
    ips.sort_unstable();
    ips.dedup();
    let sixes = ips.iter().filter(|ip: &&IpAddr| ip.is_ipv6()).count();
    if sixes > 1 || ips.len() - sixes > 1 {
        return Err(format!("{name} asks for two addresses of one family; a Service has one of each"));
    }
    Ok(ips)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claim(annotations: &Value, spec: &Value) -> Claim {
        let meta = json!({"name": "web", "namespace": "shop", "annotations": annotations});
        Claim::read(&json!({"metadata": meta, "spec": spec})).unwrap()
    }

    #[test]
    fn annotations_of_others_mean_the_same() {
        let spec = json!({"type": "LoadBalancer", "ipFamilies": ["IPv4", "IPv6"]});
        for name in ["weft.dev/load-balancer-ips", "metallb.io/loadBalancerIPs", "lbipam.cilium.io/ips"] {
            let claim = claim(&json!({ name: "2001:db8::1, 192.0.2.1" }), &spec);
            let expected: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
            assert_eq!(claim.request.unwrap().ips, expected, "{name}");
        }
        let all = json!({"metallb.universe.tf/address-pool": "gold", "lbipam.cilium.io/sharing-key": "k", "x": "y"});
        let claim = claim(&all, &spec);
        assert_eq!(claim.request.unwrap().pool.as_deref(), Some("gold"));
        assert_eq!(claim.share.key.as_deref(), Some("k"));
    }

    #[test]
    fn wishes_that_make_no_sense_are_told() {
        let spec = json!({"type": "LoadBalancer", "ipFamilies": ["IPv4"], "loadBalancerIP": "192.0.2.9"});
        for (text, word) in [
            ("192.0.2.300", "no IP address"),
            ("192.0.2.1,192.0.2.2", "two addresses of one family"),
            ("192.0.2.1", "different addresses"),
        ] {
            let error = claim(&json!({"weft.dev/load-balancer-ips": text}), &spec).request.unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        let six = json!({"ipFamilies": ["IPv4"], "loadBalancerIP": "2001:db8::1"});
        assert!(claim(&Value::Null, &six).request.unwrap_err().contains("spec.ipFamilies"));
    }

    #[test]
    fn who_may_share() {
        let share = |key: &str, port: u16, local: bool, app: &str| Share {
            key: (!key.is_empty()).then(|| key.into()),
            ports: [(Protocol::Tcp, port)].into(),
            local,
            selector: if app.is_empty() { BTreeMap::new() } else { [("app".into(), app.into())].into() },
        };
        let one = share("k", 80, false, "web");
        assert!(one.with(&share("k", 81, false, "dns")));
        assert!(one.with(&share("k", 81, true, "web")), "the same pods");
        for other in [
            share("k", 80, false, "web"),
            share("j", 81, false, "web"),
            share("", 81, false, "web"),
            share("k", 81, true, "dns"),
        ] {
            assert!(!one.with(&other) && !other.with(&one), "{other:?}");
        }
        assert!(!share("k", 80, true, "").with(&share("k", 81, true, "")), "nobody knows their pods");
        let udp = Share { ports: [(Protocol::Udp, 80)].into(), ..one.clone() };
        assert!(one.with(&udp));
    }
}
