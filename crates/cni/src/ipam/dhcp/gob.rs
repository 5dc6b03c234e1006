//! Go's gob encoding (the package documentation of encoding/gob is its specification), as far as
//! the DHCP daemon's calls need it: numbers, texts, bytes, lists and structs.
//!
//! A stream is a sequence of messages, each with its length before it. A message defines a type
//! or holds a value of one; a value names its type by number. Fields that are zero are left out.

use std::collections::{BTreeMap, BTreeSet};

/// No message is longer: a configuration of 1 MiB fits.
const LONGEST: usize = 3 << 19;
/// Nor is one nested deeper, nor does a stream define more types.
const DEEPEST: u32 = 12;
const MOST_TYPES: usize = 200;

/// The numbers of Go's own types.
pub(crate) const INT: i64 = 2;
pub(crate) const UINT: i64 = 3;
pub(crate) const BYTES: i64 = 5;
pub(crate) const TEXT: i64 = 6;
const BOOL: i64 = 1;
const FLOAT: i64 = 4;
/// How a type is defined is itself a value of this type.
const DEFINITION: i64 = 16;
/// Types of a stream are numbered from here on.
const FIRST_OWN: i64 = 64;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Int(i64),
    Uint(u64),
    Bytes(Vec<u8>),
    Text(String),
    List(Vec<Value>),
    Struct(Vec<(String, Value)>),
}

/// What is wrong with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GobError {
    #[error("a message is longer than {LONGEST} bytes")]
    Long,
    #[error("a message is cut short or its parts do not fit")]
    Malformed,
    #[error("a message is nested too deeply or defines too many types")]
    Excess,
    #[error("a message has a type that is not used here")]
    Unsupported,
}

#[derive(Clone, Debug)]
enum Shape {
    Int,
    Uint,
    Bytes,
    Text,
    List(i64),
    Struct(Vec<(String, i64)>),
}

/// A type: its number, and its fields, or none for a list of the type that is given alone.
pub(crate) struct Type {
    pub(crate) id: i64,
    pub(crate) fields: Fields,
}

/// What a type consists of.
pub(crate) enum Fields {
    Struct(&'static [(&'static str, i64)]),
    List(i64),
}

/// How types are defined. Arrays, maps and types that encode themselves are not used.
const DEFINITIONS: &[Type] = &[
    Type { id: DEFINITION, fields: Fields::Struct(&[("ArrayT", 0), ("SliceT", 19), ("StructT", 20)]) },
    Type { id: 18, fields: Fields::Struct(&[("Name", TEXT), ("Id", INT)]) },
    Type { id: 19, fields: Fields::Struct(&[("CommonType", 18), ("Elem", INT)]) },
    Type { id: 20, fields: Fields::Struct(&[("CommonType", 18), ("Field", 22)]) },
    Type { id: 21, fields: Fields::Struct(&[("Name", TEXT), ("Id", INT)]) },
    Type { id: 22, fields: Fields::List(21) },
];

fn shapes(own: &[Type]) -> BTreeMap<i64, Shape> {
    let basic = [
        (BOOL, Shape::Uint),
        (INT, Shape::Int),
        (UINT, Shape::Uint),
        (FLOAT, Shape::Uint),
        (BYTES, Shape::Bytes),
        (TEXT, Shape::Text),
    ];
    let composite = DEFINITIONS.iter().chain(own).map(|one| {
        let shape = match one.fields {
            Fields::List(element) => Shape::List(element),
            Fields::Struct(fields) => {
                Shape::Struct(fields.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect())
            }
        };
        (one.id, shape)
    });
    basic.into_iter().chain(composite).collect()
}

impl Value {
    /// A field of a struct; none when it is zero.
    pub(crate) fn field(&self, name: &str) -> Option<&Value> {
        let Value::Struct(fields) = self else { return None };
        fields.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// A field that is text; empty when it is not there.
    pub(crate) fn text(&self, name: &str) -> &str {
        match self.field(name) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    /// A field that is bytes.
    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        match self.field(name) {
            Some(Value::Bytes(bytes)) => bytes,
            _ => &[],
        }
    }

    /// A field that is a list.
    pub(crate) fn list(&self, name: &str) -> &[Value] {
        match self.field(name) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    /// A field that is a number.
    pub(crate) fn int(&self, name: &str) -> i64 {
        match self.field(name) {
            Some(Value::Int(int)) => *int,
            _ => 0,
        }
    }

    fn is_zero(&self) -> bool {
        match self {
            Value::Int(int) => *int == 0,
            Value::Uint(uint) => *uint == 0,
            Value::Bytes(bytes) => bytes.is_empty(),
            Value::Text(text) => text.is_empty(),
            Value::List(list) => list.is_empty(),
            Value::Struct(fields) => fields.iter().all(|(_, value)| value.is_zero()),
        }
    }
}

/// Writes one stream, whose types it knows beforehand.
#[derive(Debug)]
pub(crate) struct Encoder {
    shapes: BTreeMap<i64, Shape>,
    defined: BTreeSet<i64>,
}

impl Encoder {
    pub(crate) fn new(types: &[Type]) -> Encoder {
        Encoder { shapes: shapes(types), defined: BTreeSet::new() }
    }

    /// The messages for a value of the type `id`, after the definitions that it needs.
    pub(crate) fn encode(&mut self, id: i64, value: &Value) -> Vec<u8> {
        let mut stream = Vec::new();
        self.define(id, &mut stream);
        let mut message = Vec::new();
        put_int(&mut message, id);
        self.put(&mut message, id, value);
        put_bytes(&mut stream, &message);
        stream
    }

    fn define(&mut self, id: i64, stream: &mut Vec<u8>) {
        if id < FIRST_OWN || !self.defined.insert(id) {
            return;
        }
        let Some(shape) = self.shapes.get(&id).cloned() else { return };
        let pair =
            |a: (&str, Value), b: (&str, Value)| Value::Struct(vec![(a.0.into(), a.1), (b.0.into(), b.1)]);
        let common = pair(("Name", Value::Text(String::new())), ("Id", Value::Int(id)));
        let (kind, definition, parts) = match shape {
            Shape::List(element) => {
                ("SliceT", pair(("CommonType", common), ("Elem", Value::Int(element))), vec![element])
            }
            Shape::Struct(fields) => {
                let field = |(name, id): &(String, i64)| {
                    pair(("Name", Value::Text(name.clone())), ("Id", Value::Int(*id)))
                };
                let list = Value::List(fields.iter().map(field).collect());
                let parts = fields.iter().map(|(_, id)| *id).collect();
                ("StructT", pair(("CommonType", common), ("Field", list)), parts)
            }
            _ => return,
        };
        let mut message = Vec::new();
        put_int(&mut message, -id);
        self.put(&mut message, DEFINITION, &Value::Struct(vec![(kind.to_owned(), definition)]));
        put_bytes(stream, &message);
        for part in parts {
            self.define(part, stream);
        }
    }

    fn put(&self, bytes: &mut Vec<u8>, id: i64, value: &Value) {
        match (self.shapes.get(&id), value) {
            (_, Value::Int(int)) => put_int(bytes, *int),
            (_, Value::Uint(uint)) => put_uint(bytes, *uint),
            (_, Value::Bytes(value)) => put_bytes(bytes, value),
            (_, Value::Text(value)) => put_bytes(bytes, value.as_bytes()),
            (Some(Shape::List(element)), Value::List(list)) => {
                put_uint(bytes, list.len() as u64);
                list.iter().for_each(|value| self.put(bytes, *element, value));
            }
            (Some(Shape::Struct(fields)), value) => {
                let mut step = 0;
                for (name, id) in fields {
                    step += 1;
                    if let Some(field) = value.field(name).filter(|field| !field.is_zero()) {
                        put_uint(bytes, step);
                        self.put(bytes, *id, field);
                        step = 0;
                    }
                }
                bytes.push(0);
            }
            // Our own types fit our own values.
            _ => {}
        }
    }
}

fn put_uint(bytes: &mut Vec<u8>, value: u64) {
    if let Ok(small @ 0..128) = u8::try_from(value) {
        return bytes.push(small);
    }
    let zeros = value.leading_zeros() / 8;
    let all = value.to_be_bytes();
    let digits = &all[zeros as usize..];
    // The number of bytes is given negated.
    bytes.push(0u8.wrapping_sub(digits.len() as u8));
    bytes.extend(digits);
}

fn put_int(bytes: &mut Vec<u8>, value: i64) {
    put_uint(bytes, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

fn put_bytes(bytes: &mut Vec<u8>, value: &[u8]) {
    put_uint(bytes, value.len() as u64);
    bytes.extend(value);
}

/// Reads one stream.
#[derive(Debug)]
pub(crate) struct Decoder {
    shapes: BTreeMap<i64, Shape>,
}

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder { shapes: shapes(&[]) }
    }

    /// Takes the next value off the front of what has come; none when it is not whole yet.
    pub(crate) fn next(&mut self, stream: &mut Vec<u8>) -> Result<Option<Value>, GobError> {
        loop {
            let mut rest = &stream[..];
            let length = match uint(&mut rest) {
                Ok(length) => usize::try_from(length).map_err(|_| GobError::Long)?,
                Err(_) if stream.len() < 9 => return Ok(None),
                Err(error) => return Err(error),
            };
            if length > LONGEST {
                return Err(GobError::Long);
            }
            let Some(mut message) = rest.get(..length) else { return Ok(None) };
            let consumed = stream.len() - rest.len() + length;
            let id = int(&mut message)?;
            let value = if id < 0 {
                let definition = self.value(&mut message, DEFINITION, 0)?;
                self.learn(id.checked_neg().ok_or(GobError::Malformed)?, &definition)?;
                None
            } else {
                // What is no struct has a zero before it; nothing here is sent alone.
                match self.shapes.get(&id) {
                    Some(Shape::Struct(_)) => Some(self.value(&mut message, id, 0)?),
                    _ => return Err(GobError::Unsupported),
                }
            };
            stream.drain(..consumed);
            if value.is_some() {
                return Ok(value);
            }
        }
    }

    fn learn(&mut self, id: i64, definition: &Value) -> Result<(), GobError> {
        if id < FIRST_OWN || self.shapes.len() > MOST_TYPES {
            return Err(GobError::Excess);
        }
        let shape = if let Some(list) = definition.field("SliceT") {
            Shape::List(list.int("Elem"))
        } else if let Some(fields) = definition.field("StructT") {
            let fields = fields.list("Field").iter();
            Shape::Struct(fields.map(|field| (field.text("Name").to_owned(), field.int("Id"))).collect())
        } else {
            return Err(GobError::Unsupported);
        };
        self.shapes.insert(id, shape);
        Ok(())
    }

    fn value(&self, bytes: &mut &[u8], id: i64, depth: u32) -> Result<Value, GobError> {
        if depth > DEEPEST {
            return Err(GobError::Excess);
        }
        Ok(match self.shapes.get(&id).ok_or(GobError::Unsupported)? {
            Shape::Int => Value::Int(int(bytes)?),
            Shape::Uint => Value::Uint(uint(bytes)?),
            Shape::Bytes => Value::Bytes(chunk(bytes)?.to_vec()),
            Shape::Text => {
                let text = std::str::from_utf8(chunk(bytes)?).map_err(|_| GobError::Malformed)?;
                Value::Text(text.to_owned())
            }
            Shape::List(element) => {
                let count = uint(bytes)?;
                // Each takes a byte at least, so what is asked for is there.
                if count > bytes.len() as u64 {
                    return Err(GobError::Malformed);
                }
                let values = (0..count).map(|_| self.value(bytes, *element, depth + 1));
                Value::List(values.collect::<Result<_, _>>()?)
            }
            Shape::Struct(fields) => {
                let (mut at, mut values) = (0usize, Vec::new());
                loop {
                    match uint(bytes)? {
                        0 => break Value::Struct(values),
                        step => {
                            at = at
                                .checked_add(usize::try_from(step).unwrap_or(usize::MAX))
                                .ok_or(GobError::Malformed)?;
                            let (name, id) = fields.get(at - 1).ok_or(GobError::Unsupported)?;
                            values.push((name.clone(), self.value(bytes, *id, depth + 1)?));
                        }
                    }
                }
            }
        })
    }
}

fn uint(bytes: &mut &[u8]) -> Result<u64, GobError> {
    let (first, rest) = bytes.split_first().ok_or(GobError::Malformed)?;
    *bytes = rest;
    if *first < 128 {
        return Ok((*first).into());
    }
    let count = usize::from(0u8.wrapping_sub(*first));
    let (digits, rest) = bytes.split_at_checked(count).filter(|_| count <= 8).ok_or(GobError::Malformed)?;
    *bytes = rest;
    Ok(digits.iter().fold(0, |value, digit| value << 8 | u64::from(*digit)))
}

fn int(bytes: &mut &[u8]) -> Result<i64, GobError> {
    let value = uint(bytes)?;
    Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}

fn chunk<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], GobError> {
    let length = usize::try_from(uint(bytes)?).map_err(|_| GobError::Malformed)?;
    let (chunk, rest) = bytes.split_at_checked(length).ok_or(GobError::Malformed)?;
    *bytes = rest;
    Ok(chunk)
}

#[cfg(test)]
#[path = "gob_tests.rs"]
mod tests;
