//! Query parameters.

use std::collections::HashMap;

use crate::error::ApiError;

/// The parameters of a request; the first of a name counts.
#[derive(Debug, Default)]
pub(super) struct Query(HashMap<String, String>);

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        let mut map = HashMap::new();
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = percent_decode(key, true).zip(percent_decode(value, true));
            let (key, value) = decoded.ok_or_else(|| ApiError::bad_request("the query is no UTF-8"))?;
            map.entry(key).or_insert(value);
        }
        Ok(Self(map))
    }

    /// A parameter that is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// A parameter that is there and does not say no.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|v| v != "0" && !v.eq_ignore_ascii_case("false"))
    }

    /// A whole number.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let wrong =
            |v: &str| ApiError::bad_request(format!("strconv.ParseInt: parsing {v:?}: invalid syntax"));
        self.get(name).map(|v| v.parse().map_err(|_| wrong(v))).transpose()
    }
}

/// Undoes percent-encoding; None when the bytes are no UTF-8.
pub(crate) fn percent_decode(text: &str, plus_is_space: bool) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[at], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) if plus_is_space => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("labelSelector=app%3Dweb%2Ctier+in+%28a%29&watch=1&limit=5&x").unwrap();
        assert_eq!(query.get("labelSelector"), Some("app=web,tier in (a)"));
        assert!(query.flag("watch") && query.flag("x") && !query.flag("y"));
        assert!(!Query::parse("watch=False").unwrap().flag("watch"));
        assert_eq!(query.number("limit").unwrap(), Some(5));
        assert!(Query::parse("limit=a").unwrap().number("limit").is_err());
        assert!(Query::parse("a=%ff").is_err());
        assert_eq!(Query::parse("a=%").unwrap().get("a"), Some("%"));
    }
}
