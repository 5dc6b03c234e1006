//! The functions that rules may call: the language's own, its string, list and math extensions, and some of
//! Kubernetes'.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use cel::{Context, Env, ExecutionError, extensions};
use ipnet::IpNet;

const KNOWN: &[&str] = &[
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "dyn",
    "type",
    "charAt",
    "indexOf",
    "lastIndexOf",
    "join",
    "lowerAscii",
    "upperAscii",
    "replace",
    "split",
    "substring",
    "trim",
    "isIP",
    "isCIDR",
    "duration",
    "all",
    "exists",
    "exists_one",
    "map",
    "filter",
    "has",
];

/// The language with its extensions.
pub(super) fn environment() -> &'static Arc<Env> {
    static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
        let mut env = Env::stdlib();
        // Names that collide would leave one out; rules that use it are skipped then.
        let _ = env.add_extension(extensions::strings);
        Arc::new(env)
    });
    &ENVIRONMENT
}

/// Whether rules may call it: a function that is here, or an operator.
pub(super) fn is_known(function: &str) -> bool {
    KNOWN.contains(&function) || !function.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// Adds Kubernetes' own functions. A zone is no part of an address there.
pub(super) fn add(context: &mut Context<'_, '_>) {
    let _ = context.add_function("isIP", |text: Arc<String>| text.parse::<IpAddr>().is_ok());
    let _ = context.add_function("duration", duration);
    let _ = context.add_function("isCIDR", |text: Arc<String>| text.parse::<IpNet>().is_ok());
}

/// Go's duration in nanoseconds: rules compare and add durations, for which numbers do.
fn duration(text: Arc<String>) -> Result<i64, ExecutionError> {
    let read = || {
        let (sign, mut rest) = text.strip_prefix('-').map_or((1.0, text.as_str()), |rest| (-1.0, rest));
        let mut total = 0.0;
        while !rest.is_empty() && rest != "0" {
            let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
            let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(end);
            let (_, nanoseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
            total += number.parse::<f64>().ok()? * nanoseconds;
            rest = tail;
        }
        // A float that is too large for the integer becomes its greatest.
        (!text.is_empty()).then_some((sign * total) as i64)
    };
    read().ok_or_else(|| ExecutionError::function_error("duration", format!("{text:?} is no duration")))
}

/// Units of durations in nanoseconds.
const UNITS: [(&str, f64); 7] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, nanoseconds) in
            [("0s", 0), ("1.5h", 5_400_000_000_000), ("1m30s", 90_000_000_000), ("-2ms", -2_000_000)]
        {
            assert_eq!(duration(Arc::new(text.into())), Ok(nanoseconds), "{text}");
        }
        for text in ["", "s", "1", "1x", "1.2.3s"] {
            assert!(duration(Arc::new(text.into())).is_err(), "{text}");
        }
    }
}
