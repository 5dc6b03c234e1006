//! Passwords of sessions, out of Secrets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use weft_model::bgp::{Passwords, SecretKey};
use weft_store::Api;

/// How often they are read again, in case one was changed.
const AGAIN: Duration = Duration::from_secs(30);
/// After a failure, or for one that is not there.
const SOON: Duration = Duration::from_secs(2);

/// The passwords that are known. One that can no longer be read is kept: sessions go on while the API is away.
pub(super) struct Secrets {
    api: Api,
    known: Passwords,
    due: Instant,
    asked: BTreeSet<SecretKey>,
}

impl Secrets {
    pub(super) fn new(api: Api) -> Secrets {
        Secrets { api, known: Passwords::new(), due: Instant::now(), asked: BTreeSet::new() }
    }

    pub(super) fn passwords(&self) -> &Passwords {
        &self.known
    }

    /// Reads those that are wanted, when it is time; whether one is another now.
    pub(super) async fn read(&mut self, wanted: &BTreeSet<SecretKey>) -> bool {
        let new = !wanted.is_subset(&self.asked);
        if wanted.is_empty() || !new && Instant::now() < self.due {
            return false;
        }
        self.asked.clone_from(wanted);
        let before = self.known.clone();
        self.known.retain(|key, _| wanted.contains(key));
        for key in wanted {
            match self.one(key).await {
                Ok(Some(password)) => _ = self.known.insert(key.clone(), password),
                Ok(None) => _ = self.known.remove(key),
                Err(error) => tracing::debug!("{key}: {error}"),
            }
        }
        let whole = wanted.iter().all(|key| self.known.contains_key(key));
        self.due = Instant::now() + if whole { AGAIN } else { SOON };
        self.known != before
    }

    /// A password; none where the Secret or its key is not there.
    async fn one(&self, key: &SecretKey) -> Result<Option<Arc<str>>, weft_store::Error> {
        let path = format!("/api/v1/namespaces/{}/secrets/{}", key.namespace, key.name);
        let secret = match self.api.get(&path).await {
            Err(error) if error.not_found() => return Ok(None),
            secret => secret?,
        };
        let text = secret["data"][&*key.key].as_str().and_then(|text| STANDARD.decode(text).ok());
        Ok(text
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .map(|text| text.trim_end_matches('\n').into()))
    }
}
