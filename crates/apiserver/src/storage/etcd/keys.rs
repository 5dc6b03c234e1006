//! Where things are in etcd, and how objects are written there.
//!
//! | key | value |
//! |---|---|
//! | `PREFIX/objects/GROUP/PLURAL/…` | the object's JSON text without its resourceVersion |
//! | `PREFIX/tip` | nothing; every write touches it, so its revision is that of the last write |
//! | `PREFIX/base` | what is added to etcd's revisions to get resourceVersions, as decimal digits |
//!
//! The base is there after a restore into an etcd whose own revisions are behind: resourceVersions go on
//! from where they were.

use serde_json::Value;

use super::messages::{KeyValue, RangeRequest};
use crate::storage::object::Object;

/// The keys under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    /// `prefix` as given, with or without slashes at its ends.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: format!("/{}", prefix.trim_matches('/')) }
    }

    /// Everything: the first key and the key after the last.
    pub(super) fn all(&self) -> (Vec<u8>, Vec<u8>) {
        (format!("{}/", self.prefix).into_bytes(), format!("{}0", self.prefix).into_bytes())
    }

    pub(super) fn tip(&self) -> Vec<u8> {
        format!("{}/tip", self.prefix).into_bytes()
    }

    pub(super) fn base(&self) -> Vec<u8> {
        format!("{}/base", self.prefix).into_bytes()
    }

    /// What is said of a restore that did not end.
    pub(super) fn half(&self) -> String {
        format!(
            "a restore into it was cut short: remove all keys with etcdctl del --prefix {}/, and restore again",
            self.prefix
        )
    }

    /// The place of an object, or the start of many.
    pub(super) fn object(&self, key: &str) -> Vec<u8> {
        format!("{}/objects/{key}", self.prefix).into_bytes()
    }

    /// The object's key, if this is an object's place.
    pub(super) fn object_key<'a>(&self, place: &'a [u8]) -> Option<&'a str> {
        let text = std::str::from_utf8(place).ok()?;
        text.strip_prefix(&self.prefix)?.strip_prefix("/objects/")
    }

    /// A request for one key as it is now.
    pub(super) fn one(key: Vec<u8>) -> RangeRequest {
        RangeRequest { key, range_end: Vec::new(), limit: 1, revision: 0 }
    }
}

/// The end of the range of all keys that start with a prefix.
pub(super) fn end_of(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return prefix;
        }
    }
    vec![0]
}

/// The object of a key's value.
pub(super) fn object(key: &str, kv: &KeyValue, base: u64) -> Result<Object, String> {
    let mut value: Value =
        serde_json::from_slice(&kv.value).map_err(|e| format!("the object {key} in etcd is no JSON: {e}"))?;
    if !value["metadata"].is_object() {
        return Err(format!("the object {key} in etcd has no metadata"));
    }
    Object::new(key, &mut value, revision(kv.mod_revision) + base).map_err(|e| e.message)
}

/// An etcd revision; they are never negative.
pub(super) fn revision(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

/// The base that a value tells; none is 0.
pub(super) fn read_base(value: &[u8]) -> Result<u64, String> {
    if value.is_empty() {
        return Ok(0);
    }
    let text = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
    text.ok_or_else(|| "the key base in etcd holds no number".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for given in ["/weft", "weft", "/weft/"] {
            let keys = Keys::new(given);
            assert_eq!(keys.all(), (b"/weft/".to_vec(), b"/weft0".to_vec()), "{given}");
            let place = keys.object("core/pods/a/b");
            assert_eq!(place, b"/weft/objects/core/pods/a/b");
            assert_eq!(keys.object_key(&place), Some("core/pods/a/b"));
            assert_eq!(keys.object_key(&keys.tip()), None);
        }
        assert_eq!(end_of(b"a/".to_vec()), b"a0");
        assert_eq!(end_of(vec![1, 255]), [2]);
        assert_eq!(end_of(vec![255]), [0]);
        assert_eq!((read_base(b""), read_base(b"12\n")), (Ok(0), Ok(12)));
        assert!(read_base(b"x").is_err());
    }

    #[test]
    fn an_object_has_its_revision() {
        let kv = KeyValue {
            value: br#"{"metadata":{"name":"a"}}"#.to_vec(),
            mod_revision: 5,
            ..KeyValue::default()
        };
        assert_eq!(object("k", &kv, 10).unwrap().rv(), 15);
        for bad in ["", "{}", "[]", "{\"metadata\":1}"] {
            let kv = KeyValue { value: bad.into(), ..kv.clone() };
            assert!(object("k", &kv, 0).is_err(), "{bad}");
        }
    }
}
