//! Pools of addresses, the blocks that nodes claim of them, and what pods ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Labels, as objects have them.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// The prefix length of a block of IPv4, where its pool gives none.
pub const BLOCK_SIZE_V4: u8 = 26;
/// The same for IPv6.
pub const BLOCK_SIZE_V6: u8 = 122;

/// Annotations of a pod by which it asks for addresses, a JSON list or words with commas.
pub const ADDRESS_ANNOTATIONS: [&str; 2] = ["weft.dev/ip-addresses", "cni.projectcalico.org/ipAddrs"];
/// Annotations of a pod or a namespace that name the pools to choose from, in the same form.
pub const POOL_ANNOTATIONS: [&str; 3] =
    ["weft.dev/ip-pools", "cni.projectcalico.org/ipv4pools", "cni.projectcalico.org/ipv6pools"];
/// The most entries of such a list that are read.
const LIST_LIMIT: usize = 16;

/// Chooses objects by their labels (meta/v1 LabelSelector); an empty one chooses all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that must have these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: Labels,
    /// What else must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
}

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// The label.
    pub key: Arc<str>,
    /// How its value is compared.
    pub operator: Operator,
    /// With what.
    #[serde(default)]
    pub values: Vec<Arc<str>>,
}

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// It has none of them, or is absent.
    NotIn,
    /// It is there.
    Exists,
    /// It is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether it chooses everything.
    pub fn is_all(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Whether it chooses an object with these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        let equal = self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
        equal && self.match_expressions.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let among = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => among,
            Operator::NotIn => !among,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// Addresses that pods can have (weft.dev/v1 IPPool).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpPool {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.uid`; tells a pool made anew from the one before.
    pub uid: Arc<str>,
    /// `metadata.creationTimestamp`: of two pools that overlap the older one counts.
    pub created: Arc<str>,
    /// Its addresses.
    pub cidr: IpNet,
    /// Prefix length of its blocks.
    pub block_size: u8,
    /// New pods get no addresses out of it.
    pub disabled: bool,
    /// Packets of its pods to outside of all pools leave under their node's address.
    pub nat_outgoing: bool,
    /// Only for pods that ask for it.
    pub manual: bool,
    /// Routers of other ASes are not told of it by BGP.
    #[serde(default)]
    pub disable_bgp_export: bool,
    /// Which nodes use it.
    pub node_selector: LabelSelector,
    /// The pods of which namespaces use it.
    pub namespace_selector: LabelSelector,
}

/// A part of a pool that a node has claimed (weft.dev/v1 IPBlock).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpBlock {
    /// `metadata.name`, which follows from the CIDR.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`: what is written back compares it.
    pub version: Arc<str>,
    /// Its addresses.
    pub cidr: IpNet,
    /// The pool's name.
    pub pool: Arc<str>,
    /// The node that gives its addresses to pods.
    pub node: Option<Arc<str>>,
    /// [`IpPool::nat_outgoing`], as the owner last saw it: it holds for the block's pods when the pool is gone.
    #[serde(default)]
    pub nat_outgoing: bool,
    /// Addresses lent, and to which node.
    pub borrowed: BTreeMap<IpAddr, Arc<str>>,
    /// What other nodes ask for, by node.
    pub asked: BTreeMap<Arc<str>, BTreeSet<Ask>>,
    /// Addresses that an operator wants given back.
    pub release: BTreeSet<IpAddr>,
}

/// What a node asks a block's owner to lend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Ask {
    /// Whichever address is free.
    Any,
    /// This one, which a pod asks for.
    This(IpAddr),
}

impl std::fmt::Display for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ask::Any => f.write_str("any"),
            Ask::This(ip) => ip.fmt(f),
        }
    }
}

/// A namespace (core/v1 Namespace), as far as pools are chosen by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// The pools that its annotation names; empty without one.
    pub pools: Vec<Arc<str>>,
}

/// What a pod asks for by annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// These addresses, at most one a family.
    pub ips: Vec<IpAddr>,
    /// An address of one of these pools.
    pub pools: Vec<Arc<str>>,
}

impl Wish {
    /// What annotations say; the error names the annotation that makes no sense.
    pub fn of<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Result<Wish, String> {
        let mut wish = Wish::default();
        for key in ADDRESS_ANNOTATIONS {
            for text in annotation(key).map(|text| list(key, text)).transpose()?.unwrap_or_default() {
                let ip = text.parse().map_err(|_| format!("{key}: {text:?} is no IP address"))?;
                if !wish.ips.contains(&ip) {
                    wish.ips.push(ip);
                }
            }
        }
        for key in POOL_ANNOTATIONS {
            let names = annotation(key).map(|text| list(key, text)).transpose()?.unwrap_or_default();
            wish.pools.extend(names.into_iter().map(Arc::from));
        }
        let of_family = |v4: bool| wish.ips.iter().filter(|ip| ip.is_ipv4() == v4).count();
        if of_family(true) > 1 || of_family(false) > 1 {
            return Err(format!("{}: a pod has one address a family", ADDRESS_ANNOTATIONS[0]));
        }
        Ok(wish)
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.ips.is_empty() && self.pools.is_empty()
    }
}

/// A JSON list of strings, or words with commas.
fn list(key: &str, text: &str) -> Result<Vec<String>, String> {
    let words: Vec<String> = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(text).map_err(|_| format!("{key}: {text:?} is no list of strings"))?,
        false => text.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect(),
    };
    if words.len() > LIST_LIMIT {
        return Err(format!("{key}: more than {LIST_LIMIT} entries"));
    }
    Ok(words)
}

/// The name of the block with this CIDR: `10.244.0.64/26` → `10-244-0-64-26`, as Calico has it.
pub fn block_name(cidr: &IpNet) -> String {
    format!("{}-{}", cidr.network().to_string().replace(['.', ':'], "-"), cidr.prefix_len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_chooses_by_labels() {
        let labels: Labels = [("tier".into(), "gold".into())].into();
        let selector = |text: &str| serde_json::from_str::<LabelSelector>(text).unwrap();
        assert!(selector("{}").is_all() && selector("{}").matches(&Labels::new()));
        for (text, chosen) in [
            (r#"{"matchLabels":{"tier":"gold"}}"#, true),
            (r#"{"matchLabels":{"tier":"tin"}}"#, false),
            (r#"{"matchExpressions":[{"key":"tier","operator":"In","values":["tin","gold"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"tier","operator":"NotIn","values":["gold"]}]}"#, false),
            (r#"{"matchExpressions":[{"key":"zone","operator":"NotIn","values":["a"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"tier","operator":"Exists"}]}"#, true),
            (r#"{"matchExpressions":[{"key":"tier","operator":"DoesNotExist"}]}"#, false),
        ] {
            assert_eq!(selector(text).matches(&labels), chosen, "{text}");
        }
    }

    #[test]
    fn wishes_are_read_in_both_forms_and_bad_ones_are_errors() {
        let wish = |key: &'static str, text: &'static str| Wish::of(move |k| (k == key).then_some(text));
        let calico = wish("cni.projectcalico.org/ipAddrs", r#"["10.0.0.7", "fd00::7"]"#).unwrap();
        let weft = wish("weft.dev/ip-addresses", "10.0.0.7, fd00::7").unwrap();
        assert_eq!(calico, weft);
        assert_eq!(calico.ips.len(), 2);
        let pools = wish("cni.projectcalico.org/ipv4pools", r#"["gold"]"#).unwrap();
        assert_eq!(pools.pools, ["gold".into()]);
        assert!(Wish::of(|_| None).unwrap().is_empty());
        for bad in ["[1]", "10.0.0.300", "10.0.0.1,10.0.0.2", "[\"10.0.0.1\""] {
            assert!(wish("weft.dev/ip-addresses", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_name_of_a_block_is_a_name_and_one_block_s_own() {
        let name = |text: &str| block_name(&text.parse().unwrap());
        assert_eq!(name("10.244.0.64/26"), "10-244-0-64-26");
        assert_eq!(name("fd00:0:0:1::/122"), "fd00-0-0-1---122");
        assert_ne!(name("fd00::1:0/122"), name("fd00:0:0:1::/122"));
    }
}
