//! Limits of numbers.

use serde_json::{Number, Value};

use super::Run;
use crate::schema::node::{Checks, Node};

impl Run<'_> {
    pub(super) fn number(&mut self, number: &Number, node: &Node, checks: &Checks) {
        let value = Value::Number(number.clone());
        if node.format.as_deref() == Some("int32")
            && number.as_i64().is_none_or(|n| i32::try_from(n).is_err())
        {
            let path = self.path.text().to_owned();
            self.unplaced(&format!("Checked value must be of type integer with format int32 in {path}"));
        }
        if let Some(factor) = &checks.multiple_of
            && !multiple(number, factor)
        {
            self.invalid(&value, &format!("should be a multiple of {}", shown(factor)));
        }
        let beyond = |order: std::cmp::Ordering, exclusive: bool, limit: &Number| {
            compare(number, limit).is_some_and(|o| o == order || (exclusive && o.is_eq()))
        };
        if let Some(max) = checks.maximum.as_ref()
            && beyond(std::cmp::Ordering::Greater, max.exclusive, &max.limit)
        {
            let how = if max.exclusive { "less than" } else { "less than or equal to" };
            self.invalid(&value, &format!("should be {how} {}", shown(&max.limit)));
        }
        if let Some(min) = checks.minimum.as_ref()
            && beyond(std::cmp::Ordering::Less, min.exclusive, &min.limit)
        {
            let how = if min.exclusive { "greater than" } else { "greater than or equal to" };
            self.invalid(&value, &format!("should be {how} {}", shown(&min.limit)));
        }
    }
}

/// As Go prints it: a whole number without a point.
fn shown(number: &Number) -> String {
    number.as_f64().filter(|_| number.is_f64()).map_or_else(|| number.to_string(), |f| f.to_string())
}

fn compare(a: &Number, b: &Number) -> Option<std::cmp::Ordering> {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

fn multiple(number: &Number, factor: &Number) -> bool {
    match (number.as_i64(), factor.as_i64()) {
        (Some(n), Some(f)) if f > 0 => n % f == 0,
        _ => match (number.as_f64(), factor.as_f64()) {
            (Some(n), Some(f)) if f > 0.0 => (n / f).fract().abs() < 1e-9,
            _ => true,
        },
    }
}
