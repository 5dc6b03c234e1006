//! Bodies in Kubernetes' protobuf, for what `kubectl create namespace|configmap|secret|…` sends.
//!
//! Field numbers are those of k8s.io/api's `generated.proto`. A field that is not in the tables and not
//! empty refuses the whole body: nothing that a client says is dropped in silence.

mod policy;
mod security;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// The start of every such body; after it a `runtime.Unknown`.
const MAGIC: &[u8] = b"k8s\0";

/// The media type.
pub(super) const MEDIA: &str = "application/vnd.kubernetes.protobuf";

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Texts,
    Int,
    /// A number or a text: type = 1 (1 for a text), number = 2, text = 3.
    IntOrText,
    Bool,
    /// A map from text to text.
    Labels,
    /// A map from text to bytes, which JSON has in base64.
    Blobs,
    Message(&'static [Field]),
    Messages(&'static [Field]),
}

type Field = (u64, &'static str, Kind);

use Kind::{Blobs, Bool, Int, IntOrText, Labels, Message, Messages, Text, Texts};

const META: &[Field] = &[
    (1, "name", Text),
    (2, "generateName", Text),
    (3, "namespace", Text),
    (5, "uid", Text),
    (6, "resourceVersion", Text),
    (11, "labels", Labels),
    (12, "annotations", Labels),
    (14, "finalizers", Texts),
];
const NAMESPACE: &[Field] =
    &[(1, "metadata", Message(META)), (2, "spec", Message(&[(1, "finalizers", Texts)]))];
const CONFIG_MAP: &[Field] =
    &[(1, "metadata", Message(META)), (2, "data", Labels), (3, "binaryData", Blobs), (4, "immutable", Bool)];
const SECRET: &[Field] = &[
    (1, "metadata", Message(META)),
    (2, "data", Blobs),
    (3, "type", Text),
    (4, "stringData", Labels),
    (5, "immutable", Bool),
];
const SERVICE_ACCOUNT: &[Field] =
    &[(1, "metadata", Message(META)), (4, "automountServiceAccountToken", Bool)];
const PORT: &[Field] =
    &[(1, "name", Text), (2, "hostPort", Int), (3, "containerPort", Int), (4, "protocol", Text)];
const CONTAINER: &[Field] = &[
    (1, "name", Text),
    (2, "image", Text),
    (3, "command", Texts),
    (4, "args", Texts),
    (5, "workingDir", Text),
    (6, "ports", Messages(PORT)),
    (14, "imagePullPolicy", Text),
];
const POD_SPEC: &[Field] = &[
    (2, "containers", Messages(CONTAINER)),
    (3, "restartPolicy", Text),
    (4, "terminationGracePeriodSeconds", Int),
    (7, "nodeSelector", Labels),
    (8, "serviceAccountName", Text),
    (10, "nodeName", Text),
    (11, "hostNetwork", Bool),
];
const TEMPLATE: &[Field] = &[(1, "metadata", Message(META)), (2, "spec", Message(POD_SPEC))];
const DEPLOYMENT_SPEC: &[Field] = &[
    (1, "replicas", Int),
    (2, "selector", Message(&[(1, "matchLabels", Labels)])),
    (3, "template", Message(TEMPLATE)),
];
const DEPLOYMENT: &[Field] = &[(1, "metadata", Message(META)), (2, "spec", Message(DEPLOYMENT_SPEC))];

/// Reads a request body in Kubernetes' protobuf; None when it is malformed or says something that the tables do not know.
pub fn parse(bytes: &[u8]) -> Option<Value> {
    const TYPE: &[Field] = &[(1, "apiVersion", Text), (2, "kind", Text)];
    let mut kind = Value::Null;
    let mut raw: &[u8] = b"";
    for field in fields(bytes.strip_prefix(MAGIC)?) {
        match field? {
            (1, Raw::Bytes(meta)) => kind = message(meta, TYPE)?,
            (2, Raw::Bytes(bytes)) => raw = bytes,
            (_, raw) if raw.is_empty() => {}
            _ => return None,
        }
    }
    let table = match (kind["apiVersion"].as_str()?, kind["kind"].as_str()?) {
        ("v1", "Namespace") => NAMESPACE,
        ("v1", "ConfigMap") => CONFIG_MAP,
        ("v1", "Secret") => SECRET,
        ("v1", "ServiceAccount") => SERVICE_ACCOUNT,
        ("apps/v1", "Deployment") => DEPLOYMENT,
        (version, kind) => security::table(version, kind).or_else(|| policy::table(version, kind))?,
    };
    let mut object = message(raw, table)?;
    object["apiVersion"] = kind["apiVersion"].take();
    object["kind"] = kind["kind"].take();
    Some(object)
}

enum Raw<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Raw<'_> {
    /// Whether it says nothing: zero, no bytes, or a message of such fields.
    fn is_empty(&self) -> bool {
        match self {
            Self::Number(n) => *n == 0,
            Self::Bytes(bytes) => {
                bytes.len() < 256 && fields(bytes).all(|f| f.is_some_and(|(_, raw)| raw.is_empty()))
            }
        }
    }
}

/// The fields of a message; None where it is malformed, and then no more.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = Option<(u64, Raw<'_>)>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let field = next_field(&mut bytes);
        if field.is_none() {
            bytes = b"";
        }
        Some(field)
    })
}

fn next_field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Raw<'a>)> {
    let tag = varint(bytes)?;
    match tag & 7 {
        0 => Some((tag >> 3, Raw::Number(varint(bytes)?))),
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            let (value, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Some((tag >> 3, Raw::Bytes(value)))
        }
        _ => None,
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn message(bytes: &[u8], table: &[Field]) -> Option<Value> {
    let mut out = Map::new();
    for field in fields(bytes) {
        let (number, raw) = field?;
        match table.iter().find(|(n, _, _)| *n == number) {
            Some((_, name, kind)) => add(&mut out, name, *kind, &raw)?,
            None if raw.is_empty() => {}
            None => return None,
        }
    }
    Some(Value::Object(out))
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

fn add(out: &mut Map<String, Value>, name: &str, kind: Kind, raw: &Raw<'_>) -> Option<()> {
    let mut push = |value: Value| match out.entry(name).or_insert_with(|| json!([])) {
        Value::Array(list) => list.push(value),
        other => *other = value,
    };
    match (kind, raw) {
        (Text, Raw::Bytes(b"")) => {}
        (Text, Raw::Bytes(bytes)) => drop(out.insert(name.to_owned(), json!(text(bytes)?))),
        (Texts, Raw::Bytes(bytes)) => push(json!(text(bytes)?)),
        // Numbers that are negative come as their two's complement.
        (Int, Raw::Number(n)) => drop(out.insert(name.to_owned(), json!(n.cast_signed()))),
        (IntOrText, Raw::Bytes(bytes)) => drop(out.insert(name.to_owned(), int_or_text(bytes)?)),
        (Bool, Raw::Number(n)) => drop(out.insert(name.to_owned(), json!(*n != 0))),
        (Message(table), Raw::Bytes(bytes)) => drop(out.insert(name.to_owned(), message(bytes, table)?)),
        (Messages(table), Raw::Bytes(bytes)) => push(message(bytes, table)?),
        (Labels | Blobs, Raw::Bytes(bytes)) => {
            let (key, value) = entry(bytes)?;
            let value = if matches!(kind, Blobs) { STANDARD.encode(value) } else { text(value)? };
            out.entry(name).or_insert_with(|| json!({})).as_object_mut()?.insert(key, json!(value));
        }
        _ => return None,
    }
    Some(())
}

fn int_or_text(bytes: &[u8]) -> Option<Value> {
    let given = message(bytes, &[(1, "type", Int), (2, "number", Int), (3, "text", Text)])?;
    let text = given["type"] == 1;
    Some(if text {
        json!(given["text"].as_str().unwrap_or(""))
    } else {
        json!(given["number"].as_i64().unwrap_or(0))
    })
}

/// A map's entry: key = 1, value = 2.
fn entry(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (mut key, mut value): (String, &[u8]) = (String::new(), b"");
    for field in fields(bytes) {
        match field? {
            (1, Raw::Bytes(bytes)) => key = text(bytes)?,
            (2, Raw::Bytes(bytes)) => value = bytes,
            _ => return None,
        }
    }
    Some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes);
            parse(&[MAGIC, &bytes].concat());
            for table in [NAMESPACE, CONFIG_MAP, SECRET, DEPLOYMENT] {
                message(&bytes, table);
            }
        }
    }
}
