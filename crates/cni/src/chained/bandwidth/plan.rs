//! The keys of `bandwidth`, and what they mean in the kernel's terms.

use ipnet::IpNet;
use serde::Deserialize;
use weft_kernel::{Tbf, ticks};

use crate::protocol::config::invalid;
use crate::protocol::error::CniError;

/// How long a packet may wait for its turn, in microseconds.
const LATENCY: f64 = 25_000.0;
const SECOND: f64 = 1_000_000.0;

/// What is limited.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Towards the container.
    pub(crate) ingress: Option<Limit>,
    /// From the container.
    pub(crate) egress: Option<Limit>,
    /// Which traffic it is about.
    pub(crate) subnets: Subnets,
}

/// A rate that is not exceeded but for a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Bytes a second.
    rate: u64,
    /// Bytes.
    burst: u32,
}

/// The other ends of the traffic that is limited.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Subnets {
    #[default]
    All,
    /// Only these.
    Shaped(Vec<IpNet>),
    /// All but these.
    Unshaped(Vec<IpNet>),
}

/// The keys, in the configuration or in `runtimeConfig.bandwidth`; rates and bursts in bits.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bandwidth {
    ingress_rate: Option<u64>,
    ingress_burst: Option<u64>,
    egress_rate: Option<u64>,
    egress_burst: Option<u64>,
    shaped_subnets: Option<Vec<String>>,
    unshaped_subnets: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Keys {
    #[serde(flatten)]
    own: Bandwidth,
    runtime_config: Option<Runtime>,
}

#[derive(Debug, Default, Deserialize)]
struct Runtime {
    bandwidth: Option<Bandwidth>,
}

impl Plan {
    /// The configuration goes before the runtime as soon as it has one of the keys.
    pub(crate) fn of(keys: Keys) -> Result<Plan, CniError> {
        let own = &keys.own;
        let rates = [own.ingress_rate, own.ingress_burst, own.egress_rate, own.egress_burst];
        let configured = rates.iter().any(Option::is_some);
        let runtime = keys.runtime_config.and_then(|runtime| runtime.bandwidth).unwrap_or_default();
        let given = if configured { keys.own } else { runtime };
        Ok(Plan {
            ingress: limit("ingress", given.ingress_rate, given.ingress_burst)?,
            egress: limit("egress", given.egress_rate, given.egress_burst)?,
            subnets: subnets(given.shaped_subnets, given.unshaped_subnets)?,
        })
    }
}

fn limit(way: &str, rate: Option<u64>, burst: Option<u64>) -> Result<Option<Limit>, CniError> {
    match (rate.unwrap_or(0), burst.unwrap_or(0)) {
        (0, 0) => Ok(None),
        (0, _) => Err(invalid(&format!("{way}Rate: it is missing, and {way}Burst needs it"))),
        (_, 0) => Err(invalid(&format!("{way}Burst: it is missing, and {way}Rate needs it"))),
        (rate, burst) => match u32::try_from(burst / 8).ok().filter(|bytes| *bytes < u32::MAX) {
            None => Err(invalid(&format!("{way}Burst: {burst} bits are more than 4 GiB"))),
            Some(_) if rate < 8 => Err(invalid(&format!("{way}Rate: {rate} is less than 8 bits a second"))),
            Some(burst) => Ok(Some(Limit { rate: rate / 8, burst })),
        },
    }
}

fn subnets(shaped: Option<Vec<String>>, unshaped: Option<Vec<String>>) -> Result<Subnets, CniError> {
    let parse = |key: &str, list: Vec<String>| -> Result<Vec<IpNet>, CniError> {
        let one = |text: &String| text.parse().map_err(|_| invalid(&format!("{key}: {text:?} is no subnet")));
        list.iter().map(one).collect()
    };
    let full = |list: Option<Vec<String>>| list.filter(|list| !list.is_empty());
    match (full(shaped), full(unshaped)) {
        (Some(_), Some(_)) => {
            Err(invalid("shapedSubnets and unshapedSubnets are both given: give the shorter list only"))
        }
        (Some(list), None) => Ok(Subnets::Shaped(parse("shapedSubnets", list)?)),
        (None, Some(list)) => Ok(Subnets::Unshaped(parse("unshapedSubnets", list)?)),
        (None, None) => Ok(Subnets::All),
    }
}

impl Limit {
    /// As a token bucket, with the reference's arithmetic: what waits is what 25 ms send and one
    /// burst.
    pub(crate) fn bucket(&self) -> Tbf {
        // Rust saturates where a float exceeds an integer.
        let waiting = (self.rate as f64 * LATENCY / SECOND) as u32;
        Tbf { rate: self.rate, buffer: self.buffer(), limit: waiting.saturating_add(self.burst) }
    }

    /// Bytes a second.
    pub(crate) fn rate(&self) -> u64 {
        self.rate
    }

    /// The time that the burst takes, as the kernel wants it.
    pub(crate) fn buffer(&self) -> u32 {
        ticks((f64::from(self.burst) * SECOND / self.rate as f64) as u32)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::error::code;

    fn plan(keys: Value) -> Result<Plan, CniError> {
        Plan::of(serde_json::from_value(keys).unwrap())
    }

    #[test]
    fn bits_become_a_token_bucket() {
        let made = plan(json!({"ingressRate": 8_000_000, "ingressBurst": 800_000})).unwrap();
        assert_eq!(made.egress, None);
        let bucket = made.ingress.unwrap().bucket();
        // 100,000 bytes take 100 ms, which are 1,562,500 ticks; 25 ms send 25,000 bytes.
        assert_eq!(bucket, Tbf { rate: 1_000_000, buffer: 1_562_500, limit: 125_000 });
    }

    #[test]
    fn the_configuration_goes_before_the_runtime() {
        let runtime = json!({"bandwidth": {"egressRate": 80, "egressBurst": 80}});
        let both = json!({"ingressRate": 8, "ingressBurst": 8, "runtimeConfig": runtime});
        assert!(plan(both).unwrap().egress.is_none());
        assert!(plan(json!({"ingressRate": 0, "runtimeConfig": runtime})).unwrap().egress.is_none());
        assert!(plan(json!({"runtimeConfig": runtime})).unwrap().egress.is_some());
        assert_eq!(plan(json!({})).unwrap(), Plan::default());
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_key() {
        let cases = [
            (json!({"ingressRate": 8}), "ingressBurst"),
            (json!({"egressBurst": 8}), "egressRate"),
            (json!({"egressRate": 7, "egressBurst": 8}), "egressRate"),
            (json!({"egressRate": 8, "egressBurst": 8 * u64::from(u32::MAX)}), "egressBurst"),
            (json!({"unshapedSubnets": ["10.0.0.0/33"]}), "unshapedSubnets"),
            (json!({"unshapedSubnets": ["10.0.0.0/8"], "shapedSubnets": ["10.1.0.0/16"]}), "shapedSubnets"),
        ];
        for (mut keys, named) in cases {
            if keys.get("egressRate").is_none() && keys.get("unshapedSubnets").is_some() {
                keys["ingressRate"] = 8.into();
                keys["ingressBurst"] = 8.into();
            }
            let error = plan(keys).unwrap_err();
            assert_eq!(error.code, code::INVALID_CONFIG);
            assert!(error.message.contains(named), "{error}");
        }
    }
}
