//! Which state a list or watch shows: `resourceVersion`, `resourceVersionMatch`, `sendInitialEvents`.

use super::Call;
use super::continuation::Continue;
use super::query::Query;
use crate::error::{ApiError, FieldError};

const EXACT: &str = "Exact";
const NOT_OLDER: &str = "NotOlderThan";

/// Which state a list shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum At {
    /// The newest.
    Newest,
    /// Any that is at least of this resourceVersion.
    NotOlder(u64),
    /// As it was at this resourceVersion.
    Exact(u64),
}

/// What a list asks for.
#[derive(Debug)]
pub(super) struct ListOptions {
    pub(super) at: At,
    pub(super) from: Option<Continue>,
    /// Objects in a page; 0 is all.
    pub(super) limit: usize,
}

impl ListOptions {
    pub(super) fn parse(query: &Query) -> Result<Self, ApiError> {
        let (rv, wish) =
            (query.get("resourceVersion").unwrap_or_default(), query.get("resourceVersionMatch"));
        let from = query.get("continue");
        let mut errors = Vec::new();
        if let Some(wish) = wish {
            check_match(rv, wish, from.is_some(), &mut errors);
        }
        if query.get("sendInitialEvents").is_some() {
            let why = "sendInitialEvents is forbidden for list";
            errors.push(FieldError::forbidden("sendInitialEvents", why));
        }
        refuse(&errors)?;
        let version =
            version(rv).map_err(|why| ApiError::bad_request(format!("invalid resource version: {why}")))?;
        let from = from.map(Continue::parse).transpose()?;
        if from.is_some() && version > 0 {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let limit = limit(query)?;
        // Without a word on it, pages are of the version that is named, and whole lists not older than that.
        let exact = wish == Some(EXACT) || (wish.is_none() && limit > 0 && version > 0);
        let at = match exact {
            true => At::Exact(version),
            false if rv.is_empty() => At::Newest,
            false => At::NotOlder(version),
        };
        Ok(Self { at, from, limit })
    }
}

/// What a watch begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// What changes after this resourceVersion.
    After(u64),
    /// What changes from now on.
    Now,
    /// All objects, in a state that is not older than `least`; with `marked`, a bookmark tells their end.
    State { least: u64, marked: bool },
}

impl Start {
    pub(super) fn parse(query: &Query) -> Result<Self, ApiError> {
        let (wish, initial) = (query.get("resourceVersionMatch"), query.get("sendInitialEvents"));
        let mut errors = Vec::new();
        let mut forbid = |why: &str| errors.push(FieldError::forbidden("resourceVersionMatch", why));
        if initial.is_some() && wish != Some(NOT_OLDER) {
            forbid("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if wish.is_some() && initial.is_none() {
            forbid("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
        }
        if wish.is_some() && query.get("continue").is_some() {
            forbid("resourceVersionMatch is forbidden when continue is provided");
        }
        if let Some(wish) = wish.filter(|wish| *wish != NOT_OLDER) {
            errors.push(unsupported(wish, &[NOT_OLDER]));
        }
        refuse(&errors)?;
        let version =
            version(query.get("resourceVersion").unwrap_or_default()).map_err(ApiError::unforeseen)?;
        Ok(match (initial.map(|_| query.flag("sendInitialEvents")), version) {
            (Some(true), least) => Self::State { least, marked: query.flag("allowWatchBookmarks") },
            (Some(false), 0) => Self::Now,
            (None, 0) => Self::State { least: 0, marked: false },
            (_, version) => Self::After(version),
        })
    }
}

fn check_match(rv: &str, wish: &str, continues: bool, errors: &mut Vec<FieldError>) {
    let mut forbid = |why: &str| errors.push(FieldError::forbidden("resourceVersionMatch", why));
    if continues {
        forbid("resourceVersionMatch is forbidden when continue is provided");
    }
    if rv.is_empty() {
        forbid("resourceVersionMatch is forbidden unless resourceVersion is provided");
    } else if wish == EXACT && rv == "0" {
        forbid("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
    }
    if wish != EXACT && wish != NOT_OLDER {
        errors.push(unsupported(wish, &[EXACT, NOT_OLDER, ""]));
    }
}

fn unsupported(wish: &str, known: &[&str]) -> FieldError {
    let known: Vec<String> = known.iter().map(|k| (*k).to_owned()).collect();
    FieldError::not_supported("resourceVersionMatch", &wish.into(), &known)
}

fn refuse(errors: &[FieldError]) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid_options("ListOptions", errors)) }
}

/// A resourceVersion; 0 for none.
fn version(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        let rule = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        format!("resourceVersion: Invalid value: {text:?}: {rule}")
    })
}

/// The `limit` of a list; 0 is none, as is what is less.
pub(super) fn limit(query: &Query) -> Result<usize, ApiError> {
    Ok(usize::try_from(query.number("limit")?.unwrap_or(0)).unwrap_or(0))
}

/// For a read that may not be older than the request's `resourceVersion`: waits until that is reached.
pub(super) async fn not_older(call: &Call) -> Result<(), ApiError> {
    let asked = call.query.get("resourceVersion").unwrap_or_default();
    let least = version(asked).map_err(ApiError::unforeseen)?;
    call.registry.reach(least).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(query: &str) -> Result<At, String> {
        let options = ListOptions::parse(&Query::parse(query).unwrap());
        options.map(|o| o.at).map_err(|e| e.message)
    }

    fn watch(query: &str) -> Result<Start, String> {
        Start::parse(&Query::parse(query).unwrap()).map_err(|e| e.message)
    }

    #[test]
    fn lists_say_which_state_they_want() {
        assert_eq!(list(""), Ok(At::Newest));
        assert_eq!(list("resourceVersion=5"), Ok(At::NotOlder(5)));
        assert_eq!(list("resourceVersion=5&limit=2"), Ok(At::Exact(5)));
        assert_eq!(list("resourceVersion=0&limit=-1"), Ok(At::NotOlder(0)));
        assert_eq!(list("resourceVersion=5&limit=2&resourceVersionMatch=NotOlderThan"), Ok(At::NotOlder(5)));
        assert_eq!(list("resourceVersion=5&resourceVersionMatch=Exact"), Ok(At::Exact(5)));
        for (query, why) in [
            ("resourceVersionMatch=Exact", "is forbidden unless resourceVersion is provided"),
            ("resourceVersionMatch=Exact&resourceVersion=0", "is forbidden for resourceVersion \"0\""),
            (
                "resourceVersionMatch=X&resourceVersion=1",
                "supported values: \"Exact\", \"NotOlderThan\", \"\"",
            ),
            ("sendInitialEvents=true", "sendInitialEvents is forbidden for list"),
            ("resourceVersion=x", "invalid resource version: resourceVersion: Invalid value: \"x\""),
            ("continue=MSBh&resourceVersion=4", "not allowed when using continue"),
            ("limit=x", "parsing \"x\": invalid syntax"),
        ] {
            assert!(list(query).unwrap_err().contains(why), "{query}");
        }
    }

    #[test]
    fn watches_say_what_they_begin_with() {
        let state = |least, marked| Ok(Start::State { least, marked });
        let initial = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        assert_eq!(watch(""), state(0, false));
        assert_eq!(watch("resourceVersion=0"), state(0, false));
        assert_eq!(watch("resourceVersion=7"), Ok(Start::After(7)));
        assert_eq!(watch(&format!("{initial}&allowWatchBookmarks=true&resourceVersion=7")), state(7, true));
        assert_eq!(watch(initial), state(0, false));
        assert_eq!(watch("sendInitialEvents=false&resourceVersionMatch=NotOlderThan"), Ok(Start::Now));
        for (query, why) in [
            ("sendInitialEvents=true", "requires setting resourceVersionMatch to NotOlderThan"),
            ("resourceVersionMatch=NotOlderThan", "forbidden for watch unless sendInitialEvents is provided"),
            ("sendInitialEvents=1&resourceVersionMatch=Exact", "supported values: \"NotOlderThan\"]"),
        ] {
            assert!(watch(query).unwrap_err().contains(why), "{query}: {:?}", watch(query));
        }
    }
}
