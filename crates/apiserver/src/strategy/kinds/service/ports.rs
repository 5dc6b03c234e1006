//! Node ports: each number is one Service's, whatever the protocol.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::taken::Taken;
use super::{needs_health_check, needs_node_port};
use crate::error::FieldError;
use crate::strategy::names::random_bytes;
use crate::strategy::value::{int, list};

const FIRST: i64 = 30_000;
const COUNT: i64 = 2768;
/// How many of the first are for those who choose: they are given out when all others are taken.
const CHOSEN: i64 = 86;

/// Takes the node ports that are asked for, and gives those that are missing.
pub(super) fn allocate(
    before: Option<&Value>,
    spec: &mut Value,
    taken: &Taken<'_>,
) -> Result<(), Vec<FieldError>> {
    let mut claims = Claims { taken, own: HashSet::new(), new: HashSet::new() };
    if let Some(before) = before.filter(|b| needs_node_port(b)) {
        claims.own.extend(numbers(before));
        claims.own.insert(int(&before["healthCheckNodePort"]));
    }
    if needs_node_port(spec) {
        node_ports(before.is_some(), spec, &mut claims)?;
    }
    let had = before.is_some_and(needs_health_check);
    if needs_health_check(spec) && !had {
        let given = int(&spec["healthCheckNodePort"]);
        let field = "spec.healthCheckNodePort";
        let number = if given == 0 { claims.any(field)? } else { claims.this(field, given)? };
        spec["healthCheckNodePort"] = json!(number);
    }
    Ok(())
}

fn numbers(spec: &Value) -> impl Iterator<Item = i64> + '_ {
    list(&spec["ports"]).iter().map(|p| int(&p["nodePort"])).filter(|n| *n != 0)
}

/// The ports of one Service: on one number they may share a node port, if their protocols differ.
fn node_ports(update: bool, spec: &mut Value, claims: &mut Claims<'_>) -> Result<(), Vec<FieldError>> {
    let gives = spec["type"] == "NodePort" || spec["allocateLoadBalancerNodePorts"] != false;
    let all = list(&spec["ports"]).to_vec();
    let mut shared: HashMap<i64, i64> = HashMap::new();
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten();
    for (index, port) in ports.enumerate().filter(|(_, p)| p.is_object()) {
        let (number, given) = (int(&port["port"]), int(&port["nodePort"]));
        if given == 0 && !gives {
            continue;
        }
        let field = format!("spec.ports[{index}].nodePort");
        let asked = || all.iter().find(|p| int(&p["port"]) == number && int(&p["nodePort"]) != 0);
        let node_port = match (given, shared.get(&number)) {
            (0, Some(known)) if !update => *known,
            (0, None) if !update => match asked() {
                Some(port) => claims.this(&field, int(&port["nodePort"]))?,
                None => claims.any(&field)?,
            },
            (0, _) => claims.any(&field)?,
            (given, Some(known)) if given == *known => given,
            (given, _) if update && claims.new.contains(&given) => given,
            (given, _) => claims.this(&field, given)?,
        };
        shared.entry(number).or_insert(node_port);
        port["nodePort"] = json!(node_port);
    }
    Ok(())
}

struct Claims<'a> {
    taken: &'a Taken<'a>,
    /// What the Service had before; another of its ports may have it.
    own: HashSet<i64>,
    new: HashSet<i64>,
}

impl Claims<'_> {
    fn this(&mut self, field: &str, number: i64) -> Result<i64, Vec<FieldError>> {
        let bad = |rule: &str| Err(vec![FieldError::invalid(field, &json!(number), rule)]);
        if self.own.contains(&number) {
            return Ok(number);
        }
        if !(FIRST..FIRST + COUNT).contains(&number) {
            return bad("provided port is not in the valid range. The range of valid ports is 30000-32767");
        }
        if self.taken.has_port(number) || self.new.contains(&number) {
            return bad("provided port is already allocated");
        }
        self.new.insert(number);
        Ok(number)
    }

    fn any(&mut self, field: &str) -> Result<i64, Vec<FieldError>> {
        let start = i64::from(u32::from_be_bytes(random_bytes())) % (COUNT - CHOSEN);
        let given = (0..COUNT - CHOSEN).map(|i| CHOSEN + (start + i) % (COUNT - CHOSEN));
        let free = |n: &i64| !self.taken.has_port(*n) && !self.new.contains(n) && !self.own.contains(n);
        let found = given.chain(0..CHOSEN).map(|i| FIRST + i).find(free);
        match found {
            Some(number) => {
                self.new.insert(number);
                Ok(number)
            }
            None => {
                let rule = "failed to allocate a nodePort: range is full";
                Err(vec![FieldError::invalid(field, &json!(0), rule)])
            }
        }
    }
}
