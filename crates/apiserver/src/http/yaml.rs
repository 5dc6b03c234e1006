//! Bodies of YAML, bounded: one document, no deeper and no larger than JSON may be.

use serde_json::Value;

use super::body::MAX_BODY;
use crate::error::ApiError;

/// As the JSON parser has it.
const MAX_DEPTH: usize = 128;
/// Values in one body, those that aliases repeat counted again.
const MAX_NODES: usize = 1_000_000;

/// Reads one YAML document, or JSON, which is tried first: clients send it as YAML too.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    if bytes.trim_ascii_start().starts_with(b"{")
        && let Ok(value) = serde_json::from_slice(bytes)
    {
        return Ok(value);
    }
    let wrong = |why: String| ApiError::bad_request(format!("error decoding YAML: {why}"));
    let text = std::str::from_utf8(bytes).map_err(|e| wrong(e.to_string()))?;
    let budget = serde_saphyr::budget! {
        max_documents: 1,
        max_depth: MAX_DEPTH,
        max_nodes: MAX_NODES,
        max_events: 3 * MAX_NODES,
        max_total_scalar_bytes: 2 * MAX_BODY,
    };
    let options = serde_saphyr::options! {
        budget: budget,
        legacy_octal_numbers: true,
        strict_booleans: false,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|e| wrong(e.to_string().split_whitespace().collect::<Vec<_>>().join(" ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_and_json_are_read() {
        let wanted = json!({"kind": "Pod", "metadata": {"name": "a"}, "spec": {"n": [1, true, null]}});
        let yaml = "kind: Pod\nmetadata: {name: a}\nspec:\n  n: [1, yes, ~]\n";
        assert_eq!(parse(yaml.as_bytes()).unwrap(), wanted);
        assert_eq!(parse(wanted.to_string().as_bytes()).unwrap(), wanted);
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = format!("*a{}", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [before.as_str(); 9].join(", ")));
        }
        for bad in [bomb, "[".repeat(10_000), "a: &a [*a]".to_owned(), "a: b\n---\na: c\n".to_owned()] {
            assert_eq!(parse(bad.as_bytes()).unwrap_err().code, 400, "{}", &bad[..10]);
        }
        assert_eq!(parse(b"\xff: 1").unwrap_err().code, 400);
    }
}
