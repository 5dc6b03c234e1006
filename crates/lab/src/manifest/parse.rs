use serde_json::Value;

use super::{Manifest, ManifestError};

/// Objects in one file; a budget against documents made to exhaust memory.
const DOCUMENT_LIMIT: usize = 100_000;
const NODE_LIMIT: usize = 4_000_000;
/// How often lists may hold lists.
const LIST_DEPTH: usize = 8;

/// Parses one file's bytes and appends its objects, `List` kinds expanded.
pub(super) fn text(file: &str, bytes: &[u8], all: &mut Vec<Manifest>) -> Result<(), ManifestError> {
    let syntax = |line: u64, reason: String| ManifestError::Syntax { file: file.to_owned(), line, reason };
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count() as u64 + 1;
        syntax(line, "not UTF-8 text".into())
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let documents = if file.ends_with(".json") || text.trim_start().starts_with('{') {
        json(text).map_err(|e| syntax(e.line() as u64, e.to_string()))?
    } else {
        yaml(text).map_err(|e| syntax(line_of(&e), one_line(&e)))?
    };
    for (index, value) in documents.into_iter().enumerate() {
        expand(file, index + 1, value, 0, all)?;
    }
    Ok(())
}

fn json(text: &str) -> Result<Vec<Value>, serde_json::Error> {
    let documents: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
    Ok(documents?.into_iter().filter(|value| !value.is_null()).collect())
}

/// As kubectl reads YAML: version 1.1's booleans and octal numbers.
fn yaml(text: &str) -> Result<Vec<Value>, serde_saphyr::Error> {
    let budget = serde_saphyr::budget! {
        max_documents: DOCUMENT_LIMIT,
        max_nodes: NODE_LIMIT,
        max_events: 3 * NODE_LIMIT,
    };
    let options = serde_saphyr::options! {
        budget: budget,
        legacy_octal_numbers: true,
        strict_booleans: false,
        with_snippet: false,
    };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)?;
    Ok(documents.into_iter().filter(|value| !value.is_null()).collect())
}

fn line_of(error: &serde_saphyr::Error) -> u64 {
    error.location().map_or(0, |at| at.line())
}

/// The parser's message without line breaks.
fn one_line(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn expand(
    file: &str,
    document: usize,
    mut value: Value,
    depth: usize,
    all: &mut Vec<Manifest>,
) -> Result<(), ManifestError> {
    let is_list = value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    let items = if is_list { value.get_mut("items").map(Value::take) } else { None };
    match items {
        Some(Value::Array(items)) if depth < LIST_DEPTH => {
            items.into_iter().try_for_each(|item| expand(file, document, item, depth + 1, all))
        }
        Some(_) => Err(ManifestError::Invalid {
            file: file.to_owned(),
            document,
            field: "items".into(),
            reason: format!("a list holds an array of objects, and lists nest at most {LIST_DEPTH} deep"),
        }),
        None => {
            all.push(Manifest { value, file: file.to_owned(), document });
            Ok(())
        }
    }
}
