//! Reading a configuration in a way that tells what is read: which keys exist, and where a value
//! of a wrong type is. Only `weft cni validate` reads so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::protocol::any_case::AnyCase;
use crate::protocol::error::{CniError, code};

/// The keys that were looked for, by the path of the object that has them.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    fields: Mutex<BTreeMap<String, BTreeSet<&'static str>>>,
}

impl Readers {
    /// Reads `value`, which is at `path` in the configuration.
    pub(crate) fn read<T: DeserializeOwned>(&self, path: &str, value: &Value) -> Result<T, CniError> {
        let place = Place { value, path: path.to_owned(), readers: self };
        T::deserialize(AnyCase(place)).map_err(|fault| {
            let at = fault
                .path
                .filter(|path| !path.is_empty())
                .map(|path| format!("{path}: "))
                .unwrap_or_default();
            CniError::new(code::DECODE, format!("{at}{}", plain(&fault.reason)))
        })
    }

    fn fields(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<&'static str>>> {
        self.fields.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys of the object at `path`; none for one of which any key may be meant.
    pub(crate) fn known(&self, path: &str) -> Option<BTreeSet<&'static str>> {
        self.fields().get(path).cloned()
    }
}

/// Rust's words for types, in JSON's.
fn plain(reason: &str) -> String {
    let Some((said, expected)) = reason.rsplit_once(", expected ") else { return reason.to_owned() };
    let bits = expected.strip_prefix(['i', 'u']).and_then(|bits| bits.parse::<u32>().ok());
    let expected = match (expected, bits) {
        (_, Some(_)) if expected.starts_with('u') => "a whole number from 0",
        (_, Some(_)) => "a whole number",
        ("a sequence", _) => "a list",
        ("a map", _) => "an object",
        ("a boolean", _) => "true or false",
        (other, _) => other,
    };
    format!("{said}, expected {expected}").replace("sequence", "list").replace("type: map", "type: object")
}

/// The path of a member.
pub(crate) fn member(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[derive(Debug)]
struct Fault {
    path: Option<String>,
    reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(reason: T) -> Fault {
        Fault { path: None, reason: reason.to_string() }
    }
}

#[derive(Clone)]
struct Place<'a> {
    value: &'a Value,
    path: String,
    readers: &'a Readers,
}

impl<'a> Place<'a> {
    fn named<T>(&self, done: Result<T, Fault>) -> Result<T, Fault> {
        done.map_err(|fault| Fault { path: fault.path.or_else(|| Some(self.path.clone())), ..fault })
    }

    fn plain<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Fault> {
        let done = match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(on) => visitor.visit_bool(*on),
            Value::String(text) => visitor.visit_str(text),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), _, _) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (_, _, number) => visitor.visit_f64(number.unwrap_or_default()),
            },
            Value::Array(list) => visitor.visit_seq(List { items: list.iter().enumerate(), place: self }),
            Value::Object(map) => visitor.visit_map(Members { items: map.iter(), next: None, place: self }),
        };
        self.named(done)
    }

    fn child(&self, value: &'a Value, path: String) -> Place<'a> {
        Place { value, path, readers: self.readers }
    }
}

impl<'de> de::Deserializer<'de> for Place<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.plain(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if !self.value.is_object() {
            // A list would be taken for the fields in their order.
            let wrong = de::Error::invalid_type(unexpected(self.value), &"an object");
            return self.named(Err(wrong));
        }
        self.readers.fields().entry(self.path.clone()).or_default().extend(fields);
        self.plain(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let done = self.value.clone().into_deserializer();
        let done = de::Deserializer::deserialize_enum(done, name, variants, visitor);
        self.named(done.map_err(|error: serde_json::Error| de::Error::custom(error)))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

fn unexpected(value: &Value) -> de::Unexpected<'_> {
    match value {
        Value::Null => de::Unexpected::Unit,
        Value::Bool(on) => de::Unexpected::Bool(*on),
        Value::Number(_) => de::Unexpected::Other("a number"),
        Value::String(text) => de::Unexpected::Str(text),
        Value::Array(_) => de::Unexpected::Seq,
        Value::Object(_) => de::Unexpected::Map,
    }
}

struct List<'a, 'p> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
    place: &'p Place<'a>,
}

impl<'de> SeqAccess<'de> for List<'_, '_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((at, value)) = self.items.next() else { return Ok(None) };
        let child = self.place.child(value, format!("{}[{at}]", self.place.path));
        let named = child.clone();
        named.named(seed.deserialize(child)).map(Some)
    }
}

struct Members<'a, 'p> {
    items: serde_json::map::Iter<'a>,
    next: Option<Place<'a>>,
    place: &'p Place<'a>,
}

impl<'de> MapAccess<'de> for Members<'_, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.items.next() else { return Ok(None) };
        self.next = Some(self.place.child(value, member(&self.place.path, key)));
        seed.deserialize(key.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let child = self.next.take().ok_or_else(|| de::Error::custom("a value without a key"))?;
        let named = child.clone();
        named.named(seed.deserialize(child))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Inner {
        number: u8,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "camelCase")]
    struct Outer {
        the_list: Option<Vec<Inner>>,
        any: Option<Value>,
    }

    #[test]
    fn keys_are_told_and_a_wrong_value_has_its_path() {
        let readers = Readers::default();
        let good = json!({"theList": [{"number": 1}, {"number": 2}], "any": {"a": [1]}, "other": 1});
        let read: Outer = readers.read("", &good).unwrap();
        assert_eq!(read, serde_json::from_value(good).unwrap());
        assert_eq!(readers.known("").unwrap(), BTreeSet::from(["theList", "any"]));
        assert_eq!(readers.known("theList[1]").unwrap(), BTreeSet::from(["number"]));
        assert_eq!(readers.known("any"), None);
        for (bad, says) in [
            (
                json!({"theList": [{"number": 1}, {"number": 300}]}),
                "x.theList[1].number: invalid value: integer `300`",
            ),
            (
                json!({"theList": [{"number": "a"}]}),
                "x.theList[0].number: invalid type: string \"a\", expected a whole number from 0",
            ),
            (json!({"theList": {}}), "x.theList: invalid type: object"),
            (json!({"theList": [[1]]}), "x.theList[0]: invalid type: list"),
            (json!({"theList": [{}]}), "x.theList[0]: missing field `number`"),
        ] {
            let error = readers.read::<Outer>("x", &bad).unwrap_err();
            assert!(error.message.starts_with(says), "{error}");
        }
    }
}
