//! Kubernetes' quantities: `100m`, `1.5Gi`, `2e3`; exact to a billionth, and written in one canonical way.

use std::fmt;

const NANO: i128 = 1_000_000_000;
/// The largest amount: what fits 64 bits, in whole units.
const MOST: i128 = (i64::MAX as i128) * NANO;
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Decimal,
    Exponent,
    Binary,
}

/// An amount of something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quantity {
    nanos: i128,
    form: Form,
}

/// Why a text is no quantity, as Kubernetes says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Reads a quantity. What is finer than a billionth is rounded up; what is too large, is the largest.
    pub(super) fn parse(text: &str) -> Result<Self, QuantityError> {
        let end = text.find(|c: char| !(c.is_ascii_digit() || ".+-".contains(c))).unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (negative, digits) = match number.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, number.strip_prefix('+').unwrap_or(number)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let numeric = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
        if !numeric(whole) || !numeric(fraction) || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Format);
        }
        let (form, power, factor) = unit(suffix)?;
        let amount = scaled(whole, fraction, power + 9, factor);
        Ok(Self { nanos: if negative { -amount } else { amount }, form })
    }

    /// The amount in billionths.
    pub(super) fn nanos(self) -> i128 {
        self.nanos
    }

    /// Whether it is a whole number of units.
    pub(super) fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }

    /// The amount rounded up to thousandths, as resource lists hold it.
    pub(super) fn in_millis(self) -> Self {
        let step = NANO / 1000;
        let up = self.nanos.div_euclid(step) + i128::from(self.nanos.rem_euclid(step) != 0);
        Self { nanos: up * step, ..self }
    }
}

/// The form of a suffix, and the power of ten and the factor that it stands for.
fn unit(suffix: &str) -> Result<(Form, i32, i128), QuantityError> {
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((Form::Decimal, *power, 1));
    }
    if let Some(step) = BINARY.iter().position(|name| *name == suffix) {
        return Ok((Form::Binary, 0, 1 << (10 * (step + 1))));
    }
    if !suffix.bytes().all(|b| b.is_ascii_digit() || b"eEinumkKMGTP+-".contains(&b)) {
        return Err(QuantityError::Format);
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let power: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
    Ok((Form::Exponent, power.clamp(-1000, 1000), 1))
}

/// `whole.fraction` × 10^`power` × `factor`, rounded up, at most the largest.
fn scaled(whole: &str, fraction: &str, power: i32, factor: i128) -> i128 {
    let digits: String = whole.chars().chain(fraction.chars()).collect();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    let shift = power - i32::try_from(fraction.len()).unwrap_or(i32::MAX);
    // Digits beyond the 19th cannot matter but for rounding up.
    let (head, tail) = digits.split_at(digits.len().min(25));
    let shift = i64::from(shift) + i64::try_from(tail.len()).unwrap_or(i64::MAX);
    let number: i128 = head.parse().unwrap_or(MOST);
    let more = tail.bytes().any(|b| b != b'0');
    if shift > 30 {
        return MOST;
    }
    if shift >= 0 {
        let power = 10_i128.pow(shift.unsigned_abs() as u32);
        return number.saturating_mul(power).saturating_mul(factor).saturating_add(more.into()).min(MOST);
    }
    let product = number.saturating_mul(factor);
    let Some(divisor) = 10_i128.checked_pow(shift.unsigned_abs().min(1000) as u32) else { return 1 };
    (product / divisor + i128::from(product % divisor != 0 || more)).min(MOST)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos / NANO;
        if self.form == Form::Binary && self.is_whole() && whole.abs() >= 1024 {
            let steps = (whole.unsigned_abs().trailing_zeros() / 10).min(6) as usize;
            let suffix = if steps == 0 { "" } else { BINARY[steps - 1] };
            return write!(f, "{}{suffix}", whole >> (10 * steps));
        }
        let (mut number, mut power) = (self.nanos, -9);
        while number % 1000 == 0 && power < 18 {
            number /= 1000;
            power += 3;
        }
        match DECIMAL.iter().find(|(_, p)| *p == power) {
            _ if self.form == Form::Exponent && power != 0 => write!(f, "{number}e{power}"),
            Some((suffix, _)) => write!(f, "{number}{suffix}"),
            None => write!(f, "{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_canonical_form() {
        let table = [
            ("1", "1"),
            ("1000", "1k"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("10000Mi", "10000Mi"),
            ("1023Ki", "1023Ki"),
            ("0.5Ki", "512"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("1e3", "1e3"),
            ("5E", "5E"),
            ("-2", "-2"),
            (".5", "500m"),
            ("5.", "5"),
            ("0Gi", "0"),
            ("0.0000000001", "1n"),
            ("1E6", "1e6"),
            ("99999999999999999999999999999999999999999", "9223372036854775807"),
        ];
        for (given, wanted) in table {
            assert_eq!(Quantity::parse(given).map(|q| q.to_string()), Ok(wanted.to_owned()), "{given}");
        }
        assert_eq!(Quantity::parse("100u").unwrap().in_millis().to_string(), "1m");
    }

    #[test]
    fn what_is_no_quantity() {
        let cases = ["", "x", "1 Gi", "1..2", "--1", "1-", "+", ".", "1Z", "Gi", "1é"];
        for bad in cases {
            assert_eq!(Quantity::parse(bad).unwrap_err(), QuantityError::Format, "{bad}");
        }
        for bad in ["1ki", "1mi", "1KiB", "1e", "1Kii"] {
            assert!(Quantity::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(text in "[-+]?[0-9.]{0,40}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,4}|.*") {
            let _ = Quantity::parse(&text).map(|q| (q.to_string(), q.in_millis().to_string()));
        }

        #[test]
        fn the_canonical_form_is_the_same_amount(
            number in 0u32..,
            unit in prop::sample::select(vec!["", "m", "k", "M", "Ki", "Mi", "Gi", "e2", "n", "u"]),
        ) {
            let quantity = Quantity::parse(&format!("{number}{unit}")).unwrap();
            let again = Quantity::parse(&quantity.to_string()).unwrap();
            prop_assert_eq!(again.nanos(), quantity.nanos());
            prop_assert_eq!(again.to_string(), quantity.to_string());
        }
    }
}
