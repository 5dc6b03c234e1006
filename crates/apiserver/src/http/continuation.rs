//! Where the next page of a list starts, as the client carries it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::ApiError;

/// What a `continue` parameter says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Continue {
    /// The resourceVersion of the first page; None goes on with what is there now.
    pub(super) rv: Option<u64>,
    /// The key of the last object of the page before.
    pub(super) after: String,
}

impl Continue {
    pub(super) fn to_text(&self) -> String {
        let rv = self.rv.map_or("-1".to_owned(), |rv| rv.to_string());
        URL_SAFE_NO_PAD.encode(format!("{rv} {}", self.after))
    }

    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let text = bytes.and_then(|b| String::from_utf8(b).ok());
        let read = |t: &String| {
            let (rv, after) = t.split_once(' ')?;
            let rv = if rv == "-1" { None } else { Some(rv.parse().ok()?) };
            Some(Self { rv, after: after.to_owned() })
        };
        let wrong = "invalid continue token: continue key is not valid";
        text.as_ref().and_then(read).ok_or_else(|| ApiError::bad_request(wrong))
    }

    /// The error when the first page's version is not held any more; with it the way to go on without it.
    pub(super) fn expired(&self) -> ApiError {
        let message = "The provided continue parameter is too old to display a consistent list result. \
            You can start a new list without the continue parameter, or use the continue token in this \
            response to retrieve the remainder of the results. Continuing with the provided token results \
            in an inconsistent list - objects that were created, modified, or deleted between the time the \
            first chunk was returned and now may show up in the list.";
        let mut error = ApiError::new(410, "Expired", message);
        error.remainder = Some(Self { rv: None, after: self.after.clone() }.to_text());
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_others_are_refused() {
        for rv in [Some(7), None] {
            let token = Continue { rv, after: "core/pods/default/a".into() };
            assert_eq!(Continue::parse(&token.to_text()).unwrap(), token);
        }
        for bad in ["", "*", "AAAA", &URL_SAFE_NO_PAD.encode("x y")] {
            assert_eq!(Continue::parse(bad).unwrap_err().code, 400, "{bad}");
        }
    }
}
