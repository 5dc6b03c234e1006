use serde::Deserialize;
use serde_json::value::RawValue;

/// One page of a list, its objects still in JSON.
#[derive(Debug)]
pub struct Page {
    /// The objects.
    pub items: Vec<Box<RawValue>>,
    /// `metadata.resourceVersion`: what a watch continues from.
    pub resource_version: String,
    /// `metadata.continue`: the token for the next page, when this is not the last.
    pub token: Option<String>,
}

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    // `null` is what a Go server writes for an empty list; absent is an error.
    items: Option<Vec<Box<RawValue>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    #[serde(default, rename = "continue")]
    token: Option<String>,
}

impl Page {
    /// Reads a List object. One that is cut short or has no items or version is refused.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        let List { metadata, items } = serde_json::from_slice(body)?;
        let token = metadata.token.filter(|token| !token.is_empty());
        Ok(Page { items: items.unwrap_or_default(), resource_version: metadata.resource_version, token })
    }
}

/// The path that asks for one page.
pub(crate) fn path(path: &str, limit: usize, token: Option<&str>) -> String {
    let joint = if path.contains('?') { '&' } else { '?' };
    match token {
        Some(token) => format!("{path}{joint}limit={limit}&continue={}", escape(token)),
        None if limit > 0 => format!("{path}{joint}limit={limit}"),
        None => path.to_owned(),
    }
}

/// Percent-encodes what is not unreserved in a URI (RFC 3986, section 2.3).
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_cut_short_is_refused_and_an_empty_one_is_not() {
        let whole =
            br#"{"kind":"PodList","metadata":{"resourceVersion":"7","continue":""},"items":[{"a":1}]}"#;
        let page = Page::parse(whole).unwrap();
        assert_eq!((page.items.len(), page.resource_version.as_str(), page.token), (1, "7", None));
        for cut in 0..whole.len() {
            assert!(Page::parse(&whole[..cut]).is_err(), "{cut} bytes");
        }
        assert!(
            Page::parse(br#"{"metadata":{"resourceVersion":"7"},"items":null}"#).unwrap().items.is_empty()
        );
        assert!(Page::parse(br#"{"items":[]}"#).is_err(), "no version");
        assert!(Page::parse(br#"{"kind":"Status","metadata":{},"code":503}"#).is_err(), "not a list");
    }

    #[test]
    fn a_token_is_escaped() {
        assert_eq!(path("/api/v1/pods", 500, Some("a+/=&")), "/api/v1/pods?limit=500&continue=a%2B%2F%3D%26");
        assert_eq!(path("/api/v1/pods?fieldSelector=x", 5, None), "/api/v1/pods?fieldSelector=x&limit=5");
    }
}
