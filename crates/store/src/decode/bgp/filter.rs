//! weft.dev/v1 BGPFilter.

use std::ops::RangeInclusive;

use serde::Deserialize;
use weft_model::bgp::{CommunityValue, FilterRule, Operation, PrefixMatch, Rules};

use super::{AsWire, at_most, network};

/// The most rules of each list.
const RULES: usize = 256;
/// The most entries of the lists in a rule.
const ENTRIES: usize = 64;

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(super) struct Spec {
    #[serde(rename = "importV4")]
    import_v4: Vec<RuleWire>,
    #[serde(rename = "importV6")]
    import_v6: Vec<RuleWire>,
    #[serde(rename = "exportV4")]
    export_v4: Vec<RuleWire>,
    #[serde(rename = "exportV6")]
    export_v6: Vec<RuleWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleWire {
    action: Action,
    cidr: Option<String>,
    match_operator: Option<MatchOperator>,
    prefix_length: Option<Lengths>,
    communities: Option<Values>,
    #[serde(rename = "neighborAS")]
    neighbour: Option<AsWire>,
    #[serde(rename = "originAS")]
    origin: Option<AsWire>,
    #[serde(default)]
    operations: Vec<OperationWire>,
}

#[derive(Deserialize, PartialEq)]
enum Action {
    Accept,
    Reject,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
enum MatchOperator {
    Equal,
    NotEqual,
    In,
    NotIn,
}

#[derive(Deserialize)]
struct Lengths {
    min: Option<u8>,
    max: Option<u8>,
}

#[derive(Deserialize)]
struct Values {
    values: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum OperationWire {
    AddCommunity {
        value: String,
    },
    #[serde(rename = "prependASPath")]
    Prepend {
        prefix: Vec<AsWire>,
    },
    SetLocalPreference {
        value: u32,
    },
    #[serde(rename = "setMED")]
    Med {
        value: u32,
    },
}

/// What it says, or why it makes no sense.
pub(super) fn sense(spec: Spec) -> Result<Rules, String> {
    let family = |field: &str, rules: Vec<RuleWire>, ipv4: bool| {
        at_most(field, &rules, RULES)?;
        let numbered = rules.into_iter().enumerate();
        let read = numbered.map(|(at, wire)| rule(wire, ipv4).map_err(|e| format!("{field}[{at}]: {e}")));
        read.collect::<Result<Vec<_>, _>>()
    };
    let both = |four, six| -> Result<Vec<FilterRule>, String> { Ok([four?, six?].concat()) };
    Ok(Rules {
        import: both(family("importV4", spec.import_v4, true), family("importV6", spec.import_v6, false))?,
        export: both(family("exportV4", spec.export_v4, true), family("exportV6", spec.export_v6, false))?,
    })
}

fn rule(wire: RuleWire, ipv4: bool) -> Result<FilterRule, String> {
    let prefix = match (wire.cidr, wire.match_operator) {
        (Some(cidr), Some(operator)) => Some(prefix(&cidr, operator, wire.prefix_length, ipv4)?),
        (None, None) if wire.prefix_length.is_none() => None,
        _ => return Err("cidr and matchOperator belong together, prefixLength to both".to_owned()),
    };
    let communities = wire.communities.map(|any| any.values).unwrap_or_default();
    at_most("communities", &communities, ENTRIES)?;
    at_most("operations", &wire.operations, ENTRIES)?;
    let accept = wire.action == Action::Accept;
    if !accept && !wire.operations.is_empty() {
        return Err("operations are for routes that are accepted".to_owned());
    }
    Ok(FilterRule {
        ipv4,
        accept,
        prefix,
        communities: communities.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
        neighbour: wire.neighbour.map(|number| number.number()).transpose()?,
        origin: wire.origin.map(|number| number.number()).transpose()?,
        operations: wire.operations.into_iter().map(operation).collect::<Result<_, _>>()?,
    })
}

fn prefix(
    cidr: &str,
    operator: MatchOperator,
    given: Option<Lengths>,
    ipv4: bool,
) -> Result<PrefixMatch, String> {
    let inside = network(cidr)?;
    if inside.addr().is_ipv4() != ipv4 {
        return Err(format!("{inside} is of the other family"));
    }
    let exact = matches!(operator, MatchOperator::Equal | MatchOperator::NotEqual);
    let (least, most) =
        (inside.prefix_len(), if exact { inside.prefix_len() } else { inside.max_prefix_len() });
    let lengths: RangeInclusive<u8> = match given {
        Some(_) if exact => return Err("prefixLength is for In and NotIn".to_owned()),
        Some(Lengths { min, max }) => min.unwrap_or(least)..=max.unwrap_or(most),
        None => least..=most,
    };
    if lengths.is_empty() || *lengths.end() > inside.max_prefix_len() {
        return Err(format!("prefixLength {} to {} is no range", lengths.start(), lengths.end()));
    }
    let positive = matches!(operator, MatchOperator::Equal | MatchOperator::In);
    Ok(PrefixMatch { inside, positive, lengths })
}

fn operation(wire: OperationWire) -> Result<Operation, String> {
    Ok(match wire {
        OperationWire::AddCommunity { value } => Operation::AddCommunity(value.parse::<CommunityValue>()?),
        OperationWire::Prepend { prefix } => {
            at_most("prefix", &prefix, ENTRIES)?;
            Operation::Prepend(prefix.iter().map(AsWire::number).collect::<Result<_, _>>()?)
        }
        OperationWire::SetLocalPreference { value } => Operation::LocalPreference(value),
        OperationWire::Med { value } => Operation::Med(value),
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::{Kind, meta};
    use super::*;
    use weft_model::bgp::BgpFilter;

    fn rules(spec: &str) -> Result<Rules, String> {
        let json = format!(r#"{{"metadata":{{"name":"f"}},"spec":{spec}}}"#);
        BgpFilter::decode(&meta(&json).unwrap(), &json).unwrap().spec
    }

    #[test]
    fn rules_are_read_in_their_order() {
        let rules = rules(
            r#"{"importV4":[{"action":"Accept","cidr":"10.0.0.0/8","matchOperator":"In","prefixLength":{"max":24}},
                            {"action":"Reject","communities":{"values":["64512:1"]}}],
                "exportV6":[{"action":"Accept","neighborAS":65001,"originAS":"65002",
                             "operations":[{"addCommunity":{"value":"1:2:3"}},{"prependASPath":{"prefix":[65001]}},
                                           {"setLocalPreference":{"value":200}},{"setMED":{"value":5}}]}]}"#,
        )
        .unwrap();
        let first = rules.import[0].prefix.as_ref().unwrap();
        assert!(first.positive && rules.import[0].accept && !rules.import[1].accept);
        assert_eq!(first.lengths, 8..=24);
        assert_eq!((rules.export[0].ipv4, rules.export[0].operations.len()), (false, 4));
        assert_eq!((rules.export[0].neighbour, rules.export[0].origin), (Some(65_001), Some(65_002)));
    }

    #[test]
    fn what_makes_no_sense_is_kept_with_the_rule_and_the_reason() {
        for (bad, word) in [
            (r#"{"importV4":[{"action":"Permit"}]}"#, "unknown variant"),
            (r#"{"importV4":[{}]}"#, "missing field"),
            (r#"{"importV4":[{"action":"Accept","cidr":"10.0.0.0/8"}]}"#, "belong together"),
            (r#"{"importV4":[{"action":"Accept","cidr":"fd00::/8","matchOperator":"In"}]}"#, "other family"),
            (
                r#"{"exportV4":[{"action":"Accept"},{"action":"Accept","cidr":"10.0.0.0/8","matchOperator":"In","prefixLength":{"min":40}}]}"#,
                "exportV4[1]",
            ),
            (r#"{"importV4":[{"action":"Reject","operations":[{"setMED":{"value":1}}]}]}"#, "operations"),
            (r#"{"importV4":[{"action":"Accept","operations":[{"fly":{}}]}]}"#, "unknown variant"),
        ] {
            let error = rules(bad).unwrap_err();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }
}
