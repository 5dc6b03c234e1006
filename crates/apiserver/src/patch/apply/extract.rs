//! Which fields an object has, and which differ between two.

use serde_json::{Map, Value};

use super::set::{FieldSet, field_step};
use super::shape::{Form, Shape};

/// The fields of a value: its plain values, its list items, and the keys of its maps.
pub(super) fn fields(value: &Value, shape: Shape<'_>, depth: usize) -> FieldSet {
    let mut set = FieldSet::default();
    match (shape.form(value, depth), value) {
        (Form::Map, Value::Object(map)) => {
            for (name, child) in map {
                let mut below = fields(child, shape.field(name, depth), depth + 1);
                below.member |= shape.is_map_key(name);
                set.insert(field_step(name), below);
            }
        }
        (form @ (Form::Set | Form::Keyed(_)), Value::Array(list)) => {
            // A list whose items cannot be told apart is one value.
            for (step, item) in form.steps(list).unwrap_or_default().into_iter().zip(list) {
                let mut below = fields(item, shape.item(), depth + 1);
                if matches!(form, Form::Set) {
                    below = FieldSet::leaf();
                }
                below.member = true;
                set.insert(step, below);
            }
        }
        _ => {}
    }
    if set.is_empty() { FieldSet::leaf() } else { set }
}

/// As [`fields`], with every object and list on the way.
fn everything(value: &Value, shape: Shape<'_>, depth: usize) -> FieldSet {
    let mut set = fields(value, shape, depth);
    mark(&mut set);
    set
}

fn mark(set: &mut FieldSet) {
    set.member = true;
    set.below.values_mut().for_each(mark);
}

/// What differs between an object and a later one.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Fields that are new or have another value.
    pub(super) changed: FieldSet,
    /// Fields that are gone.
    pub(super) removed: FieldSet,
}

impl Difference {
    fn below(&mut self, step: &str, other: Difference) {
        self.changed.insert(step.to_owned(), other.changed);
        self.removed.insert(step.to_owned(), other.removed);
    }
}

/// Compares two values of a shape.
pub(super) fn compare(old: &Value, new: &Value, shape: Shape<'_>, depth: usize) -> Difference {
    let mut out = Difference::default();
    if old == new {
        return out;
    }
    let (before, after) = (shape.form(old, depth), shape.form(new, depth));
    match (old, new) {
        (Value::Object(old), Value::Object(new)) if before == Form::Map => {
            for (name, a) in old {
                let inner = shape.field(name, depth);
                out.below(&field_step(name), one(Some(a), new.get(name), inner, depth + 1));
            }
            for (name, b) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                let inner = shape.field(name, depth);
                // What every object of the kind has is there already, though empty.
                let nothing = Value::Object(Map::new());
                let before = (shape.is_part(name) && b.is_object()).then_some(&nothing);
                let mut added = one(before, Some(b), inner, depth + 1);
                if shape.is_part(name) && !b.is_object() {
                    added.changed.member &= added.changed.below.is_empty();
                }
                out.below(&field_step(name), added);
            }
            return out;
        }
        (Value::Array(a), Value::Array(b)) if before == after && before != Form::Leaf => {
            if let (Ok(steps), Ok(new_steps)) = (before.steps(a), before.steps(b)) {
                compare_items((a, &steps), (b, &new_steps), shape.item(), depth, &mut out);
                return out;
            }
        }
        _ => {}
    }
    if before != Form::Leaf {
        out.removed = everything(old, shape, depth);
    }
    out.changed = fields(new, shape, depth);
    out.removed.member = false;
    out
}

type Items<'a> = (&'a [Value], &'a [String]);

fn compare_items(old: Items<'_>, new: Items<'_>, item: Shape<'_>, depth: usize, out: &mut Difference) {
    let before: std::collections::HashMap<&String, &Value> = old.1.iter().zip(old.0).collect();
    let mut kept = std::collections::HashSet::new();
    for (step, value) in new.1.iter().zip(new.0) {
        let found = before.get(step).copied();
        kept.insert(step);
        let mut difference = one(found, Some(value), item, depth + 1);
        difference.changed.member |= found.is_none();
        out.below(step, difference);
    }
    for (step, value) in old.1.iter().zip(old.0).filter(|(step, _)| !kept.contains(step)) {
        out.below(step, one(Some(value), None, item, depth + 1));
    }
}

fn one(old: Option<&Value>, new: Option<&Value>, shape: Shape<'_>, depth: usize) -> Difference {
    match (old, new) {
        (Some(old), Some(new)) => compare(old, new, shape, depth),
        (None, Some(new)) => {
            Difference { changed: everything(new, shape, depth), removed: FieldSet::default() }
        }
        (Some(old), None) => {
            Difference { changed: FieldSet::default(), removed: everything(old, shape, depth) }
        }
        (None, None) => Difference::default(),
    }
}
