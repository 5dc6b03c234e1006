//! An applied configuration into an object, and what it no longer names out of it.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::set::{FieldSet, field_step};
use super::shape::{Form, Shape};

/// Merges a configuration into a value. The error names a list of the configuration whose items
/// cannot be told apart.
pub(super) fn merge(live: &mut Value, config: &Value, shape: Shape<'_>, depth: usize) -> Result<(), String> {
    let form = shape.form(config, depth);
    let same = shape.form(live, depth) == form;
    match (live, config, &form) {
        (Value::Object(map), Value::Object(given), Form::Map) if same => {
            for (name, value) in given {
                if value.is_null() {
                    map.remove(name);
                    continue;
                }
                let inner = shape.field(name, depth);
                merge(map.entry(name).or_insert(Value::Null), value, inner, depth + 1)
                    .map_err(|why| format!(".{name}{why}"))?;
            }
            Ok(())
        }
        (live, Value::Object(given), Form::Map) => {
            *live = Value::Object(serde_json::Map::new());
            merge(live, &Value::Object(given.clone()), shape, depth)
        }
        (live, Value::Array(given), Form::Set | Form::Keyed(_)) => {
            let old = match live {
                Value::Array(list) => std::mem::take(list),
                _ => Vec::new(),
            };
            *live = Value::Array(merge_list(old, given, &form, shape.item(), depth)?);
            Ok(())
        }
        (live, given, _) => {
            *live = given.clone();
            Ok(())
        }
    }
}

/// The configuration's order for what both have; what only the object has stays before what follows it.
fn merge_list(
    old: Vec<Value>,
    given: &[Value],
    form: &Form<'_>,
    item: Shape<'_>,
    depth: usize,
) -> Result<Vec<Value>, String> {
    let wanted = form.steps(given).map_err(|why| format!(": {why}"))?;
    // A list that cannot be taken apart has been one value, and is replaced as one.
    let (old, steps) = match form.steps(&old) {
        Ok(steps) => (old, steps),
        Err(_) => (Vec::new(), Vec::new()),
    };
    let named: HashSet<&String> = wanted.iter().collect();
    let mut shared: HashMap<String, Value> = HashMap::new();
    let mut before: HashMap<String, Vec<Value>> = HashMap::new();
    let mut waiting = Vec::new();
    for (step, value) in steps.into_iter().zip(old) {
        if named.contains(&step) {
            before.insert(step.clone(), std::mem::take(&mut waiting));
            shared.insert(step, value);
        } else {
            waiting.push(value);
        }
    }
    // New items come after the object's own last ones.
    let last_shared = wanted.iter().rposition(|step| shared.contains_key(step));
    let mut out = Vec::with_capacity(given.len() + waiting.len());
    if last_shared.is_none() {
        out.append(&mut waiting);
    }
    for (index, (step, config)) in wanted.iter().zip(given).enumerate() {
        out.append(&mut before.remove(step).unwrap_or_default());
        let mut value = shared.remove(step).unwrap_or(Value::Null);
        merge(&mut value, config, item, depth + 1).map_err(|why| format!("[{}]{why}", &step[2..]))?;
        out.push(value);
        if last_shared == Some(index) {
            out.append(&mut waiting);
        }
    }
    Ok(out)
}

/// Removes what `last` names and `owned` does not.
pub(super) fn prune(value: &mut Value, shape: Shape<'_>, last: &FieldSet, owned: &FieldSet, depth: usize) {
    let form = shape.form(value, depth);
    match value {
        Value::Object(map) if form == Form::Map => {
            let names: Vec<String> = map.keys().cloned().collect();
            for name in names {
                let step = field_step(&name);
                let Some(before) = last.get(&step) else { continue };
                let now = owned.get(&step);
                let gone = before.member && now.is_none()
                    || map.get_mut(&name).is_some_and(|child| {
                        prune_field(child, shape.field(&name, depth), before, now, depth + 1)
                    });
                if gone {
                    map.remove(&name);
                }
            }
        }
        Value::Array(list) if form != Form::Leaf => {
            let Ok(steps) = form.steps(list) else { return };
            let mut steps = steps.into_iter();
            list.retain_mut(|item| {
                let Some(step) = steps.next() else { return true };
                let Some(before) = last.get(&step) else { return true };
                let now = owned.get(&step);
                if before.member && !now.is_some_and(|now| now.member) {
                    return false;
                }
                prune(item, shape.item(), before, now.unwrap_or(&NOTHING), depth + 1);
                true
            });
        }
        _ => {}
    }
}

static NOTHING: FieldSet = FieldSet { member: false, below: std::collections::BTreeMap::new() };

/// Prunes a field; true when nothing is left of it and nobody else wants it.
fn prune_field(
    child: &mut Value,
    shape: Shape<'_>,
    before: &FieldSet,
    now: Option<&FieldSet>,
    depth: usize,
) -> bool {
    let was_empty = is_empty(child);
    prune(child, shape, before, now.unwrap_or(&NOTHING), depth);
    !was_empty && is_empty(child) && now.is_none()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}
