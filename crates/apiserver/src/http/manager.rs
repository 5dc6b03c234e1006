//! Who a request says it is, for the ownership of fields.

use http::header;

use super::Call;
use crate::error::{ApiError, FieldError};
use crate::options::WriteOptions;

/// Bytes of a manager's name, as kube-apiserver has it.
const LONGEST: usize = 128;
/// Weft's own programs; what they write is not tracked, which would cost memory in every object.
const OWN: &str = "weft";

/// The options of a write to the object or to one of its subresources.
pub(super) fn write_options(call: &Call, subresource: &'static str) -> Result<WriteOptions, ApiError> {
    let manager = match call.query.get("fieldManager") {
        Some(name) => Some(check(call, name)?.to_owned()),
        None => from_agent(call),
    };
    Ok(WriteOptions { dry_run: call.dry_run()?, manager, subresource })
}

/// The options of a server-side apply, which needs a manager, and whether it is forced.
pub(super) fn apply_options(
    call: &Call,
    subresource: &'static str,
) -> Result<(WriteOptions, bool), ApiError> {
    if call.query.get("fieldManager").is_none() {
        return Err(call.bad_option(FieldError::required("fieldManager", "is required for apply patch")));
    }
    Ok((write_options(call, subresource)?, call.query.flag("force")))
}

/// `force` is a word of server-side apply only.
pub(super) fn refuse_force(call: &Call) -> Result<(), ApiError> {
    match call.query.get("force") {
        None => Ok(()),
        Some(_) => {
            Err(call.bad_option(FieldError::forbidden("force", "may not be specified for non-apply patch")))
        }
    }
}

fn check<'a>(call: &Call, name: &'a str) -> Result<&'a str, ApiError> {
    if name.len() > LONGEST {
        return Err(call.bad_option(FieldError::too_long("fieldManager", LONGEST as u64)));
    }
    if let Some((at, letter)) = name.char_indices().find(|(_, c)| c.is_control()) {
        let rule = format!("invalid character U+{:04X} (at position {at})", u32::from(letter));
        return Err(call.bad_option(FieldError::invalid("fieldManager", &name.into(), &rule)));
    }
    Ok(name)
}

/// The program's name at the start of the user agent; nothing for Weft's own.
fn from_agent(call: &Call) -> Option<String> {
    let agent = call.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let name: String = agent.split('/').next().unwrap_or_default().chars().take(LONGEST).collect();
    if name.starts_with(OWN) {
        return None;
    }
    Some(if name.is_empty() { "unknown".to_owned() } else { name })
}
