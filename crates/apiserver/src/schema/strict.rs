//! JSON whose repeated fields are named instead of forgotten.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::MAX_REPORTED;

/// Reads JSON; of a repeated field the last counts, and its path is listed.
///
/// # Errors
/// As `serde_json`: what is malformed, or nested deeper than 128 levels.
pub(crate) fn parse(bytes: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let mut repeated = Vec::new();
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let value = Reader { place: &Place::Root, repeated: &mut repeated }.deserialize(&mut input)?;
    input.end()?;
    Ok((value, repeated))
}

/// Where in the document the reader is; a list through the stack.
enum Place<'a> {
    Root,
    Field(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

struct Reader<'a> {
    place: &'a Place<'a>,
    repeated: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let place = Place::Item(self.place, list.len());
            let Some(item) =
                items.next_element_seed(Reader { place: &place, repeated: &mut *self.repeated })?
            else {
                return Ok(Value::Array(list));
            };
            list.push(item);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let place = Place::Field(self.place, &name);
            let value = fields.next_value_seed(Reader { place: &place, repeated: &mut *self.repeated })?;
            if map.contains_key(&name) && self.repeated.len() < MAX_REPORTED {
                self.repeated.push(place.to_string());
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn repeated_fields_are_named_by_their_path() {
        let (value, repeated) =
            parse(br#"{"a": 1, "spec": {"l": [{"x": 1, "x": 2}], "l": []}, "a": 2}"#).unwrap();
        assert_eq!(repeated, ["spec.l[0].x", "spec.l", "a"]);
        assert_eq!(value, serde_json::json!({"a": 2, "spec": {"l": []}}));
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(parse("[".repeat(10_000).as_bytes()).is_err());
        assert!(parse(b"{} {}").is_err());
    }

    proptest! {
        #[test]
        fn as_the_plain_reader(text in r#"[\[\]{}:,"a0-9.e -]{0,40}"#) {
            let plain = serde_json::from_str::<Value>(&text).ok();
            prop_assert_eq!(parse(text.as_bytes()).ok().map(|(value, _)| value), plain);
        }
    }
}
