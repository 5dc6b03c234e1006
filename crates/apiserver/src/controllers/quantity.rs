//! Kubernetes quantities: `500m`, `2`, `64Gi`, `1e3`.

use serde_json::Value;

const SUFFIXES: &[(&str, u128)] = &[
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];

/// A quantity in thousandths, rounded up; None for what is none.
pub(super) fn thousandths(value: &Value) -> Option<u128> {
    match value {
        Value::Number(number) => decimal(&number.to_string(), 1000),
        Value::String(text) => parse(text.trim()),
        _ => None,
    }
}

fn parse(text: &str) -> Option<u128> {
    for (suffix, factor) in SUFFIXES {
        if let Some(number) = text.strip_suffix(suffix) {
            return decimal(number, factor.checked_mul(1000)?);
        }
    }
    match text.as_bytes().last()? {
        b'm' => decimal(&text[..text.len() - 1], 1),
        b'u' => Some(decimal(&text[..text.len() - 1], 1)?.div_ceil(1000)),
        b'n' => Some(decimal(&text[..text.len() - 1], 1)?.div_ceil(1_000_000)),
        _ => match text.split_once(['e', 'E']) {
            Some((number, power)) => {
                decimal(number, 10u128.checked_pow(power.parse().ok()?)?.checked_mul(1000)?)
            }
            None => decimal(text, 1000),
        },
    }
}

/// A decimal number times a factor.
fn decimal(text: &str, factor: u128) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    if whole.len() > 19 || fraction.len() > 9 || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = digits(fraction)?.checked_mul(factor)?.div_ceil(scale);
    digits(whole)?.checked_mul(factor)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_read_in_all_their_forms() {
        for (value, expected) in [
            (json!(2), Some(2000)),
            (json!("500m"), Some(500)),
            (json!("0.5"), Some(500)),
            (json!(".25"), Some(250)),
            (json!("1Ki"), Some(1_024_000)),
            (json!("1.5Gi"), Some(1_610_612_736_000)),
            (json!("1e3"), Some(1_000_000)),
            (json!("1k"), Some(1_000_000)),
            (json!("1u"), Some(1)),
            (json!("-1"), None),
            (json!("Gi"), None),
            (json!("99999999999999999999E"), None),
            (json!(""), None),
            (json!(null), None),
        ] {
            assert_eq!(thousandths(&value), expected, "{value}");
        }
    }
}
