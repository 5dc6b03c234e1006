//! Tokens of ServiceAccounts: signed by the server, bound to the account and perhaps to a pod.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde_json::{Value, json};

use super::user::User;
use crate::kinds;
use crate::registry::Registry;
use crate::strategy::random_uid;

/// Who signs, and for whom if a request does not say.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// A token longer than this is none of ours, in bytes.
const LONGEST: usize = 16 * 1024;

/// Signs and verifies.
pub(super) struct Keys {
    key: EcdsaKeyPair,
    id: String,
}

/// What a token is for.
pub(crate) struct Grant<'a> {
    pub(crate) account: &'a Value,
    /// The object that it is bound to: kind, name, uid.
    pub(crate) bound: Option<(&'a str, &'a str, &'a str)>,
    pub(crate) audiences: &'a [String],
    /// Seconds.
    pub(crate) lifetime: i64,
}

impl Keys {
    /// Reads `sa.key` of the data directory. Servers of one store share it.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let pem = match std::fs::read_to_string(path) {
            Ok(pem) => pem,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let pem = rcgen::KeyPair::generate().map_err(|e| e.to_string())?.serialize_pem();
                crate::server::write_private(path, pem.as_bytes()).map_err(|e| e.to_string())?;
                pem
            }
            Err(e) => return Err(e.to_string()),
        };
        let der = rcgen::KeyPair::from_pem(&pem).map_err(|e| e.to_string())?.serialize_der();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &SystemRandom::new());
        let key = key.map_err(|e| e.to_string())?;
        let digest = ring::digest::digest(&ring::digest::SHA256, key.public_key().as_ref());
        Ok(Self { id: URL_SAFE_NO_PAD.encode(digest), key })
    }

    /// A token, and when it ends.
    pub(super) fn issue(&self, grant: &Grant<'_>, now: Timestamp) -> Result<(String, Timestamp), String> {
        let meta = &grant.account["metadata"];
        let text = |field: &str| meta[field].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let end = Timestamp::from_second(now.as_second().saturating_add(grant.lifetime));
        let end = end.map_err(|e| e.to_string())?;
        let mut own = json!({"namespace": namespace, "serviceaccount": {"name": name, "uid": text("uid")}});
        if let Some((kind, name, uid)) = grant.bound {
            own[kind.to_lowercase()] = json!({"name": name, "uid": uid});
        }
        let claims = json!({
            "iss": ISSUER, "sub": format!("system:serviceaccount:{namespace}:{name}"), "aud": grant.audiences,
            "iat": now.as_second(), "nbf": now.as_second(), "exp": end.as_second(), "jti": random_uid(),
            "kubernetes.io": own,
        });
        let header = json!({"alg": "ES256", "kid": self.id, "typ": "JWT"});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|e| e.to_string())?;
        Ok((format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)), end))
    }

    /// The claims of a token that was signed here and is good now.
    fn claims(&self, token: &str, now: Timestamp) -> Option<Value> {
        if token.len() > LONGEST {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let read = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        let header = read(header)?;
        if header["alg"] != "ES256" || header["kid"] != self.id.as_str() {
            return None;
        }
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        let claims = read(claims)?;
        // One that begins later was signed by a clock that went back since: it is good.
        let good = claims["iss"] == ISSUER && now.as_second() < claims["exp"].as_i64()?;
        good.then_some(claims)
    }

    /// The ServiceAccount of a token for one of the audiences, and for which of them, if the account and
    /// what the token is bound to are still there.
    pub(super) fn user(
        &self,
        registry: &Registry,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Option<(User, Vec<String>)> {
        let claims = self.claims(token, now)?;
        let own = &claims["kubernetes.io"];
        let namespace = own["namespace"].as_str()?;
        let there = |kind, object: &Value| {
            let found = registry.peek(kind, Some(namespace), object["name"].as_str()?)?;
            (found["metadata"]["uid"] == object["uid"]).then_some(())
        };
        there(&kinds::SERVICE_ACCOUNTS, &own["serviceaccount"])?;
        for (field, kind) in [("pod", &kinds::PODS), ("secret", &kinds::SECRETS), ("node", &kinds::NODES)] {
            if own[field].is_object() {
                there(kind, &own[field])?;
            }
        }
        let of = claims["aud"].as_array()?;
        let shared: Vec<String> =
            audiences.iter().filter(|a| of.iter().any(|o| o == a.as_str())).cloned().collect();
        if shared.is_empty() {
            return None;
        }
        let mut user = User::known(claims["sub"].as_str()?, User::service_account_groups(namespace));
        user.uid = own["serviceaccount"]["uid"].as_str()?.to_owned();
        let mut extra = |field: &str, value: &Value| {
            if let Some(text) = value.as_str() {
                user.extra.insert(format!("authentication.kubernetes.io/{field}"), vec![text.to_owned()]);
            }
        };
        extra("credential-id", &json!(format!("JTI={}", claims["jti"].as_str()?)));
        extra("pod-name", &own["pod"]["name"]);
        extra("pod-uid", &own["pod"]["uid"]);
        Some((user, shared))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_until_its_end_and_as_it_was_signed() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(&dir.path().join("sa.key")).unwrap();
        let again = Keys::open(&dir.path().join("sa.key")).unwrap();
        let other = Keys::open(&dir.path().join("other.key")).unwrap();
        let account = json!({"metadata": {"namespace": "shop", "name": "web", "uid": "1"}});
        let audiences = [ISSUER.to_owned()];
        let grant =
            Grant { account: &account, bound: Some(("Pod", "p", "2")), audiences: &audiences, lifetime: 600 };
        let now = Timestamp::from_second(1_000_000).unwrap();
        let (token, end) = keys.issue(&grant, now).unwrap();
        let claims = again.claims(&token, now).unwrap();
        assert_eq!(claims["sub"], "system:serviceaccount:shop:web");
        assert_eq!(claims["kubernetes.io"]["pod"]["uid"], "2");
        let at = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).unwrap();
        assert_eq!(end, at(600));
        assert!(keys.claims(&token, at(599)).is_some() && keys.claims(&token, at(600)).is_none());
        assert!(keys.claims(&token, at(-86_400)).is_some(), "the clock went back by a day");
        assert!(other.claims(&token, now).is_none());
        let none =
            format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), token.split('.').nth(1).unwrap());
        for bad in [none.as_str(), "", ".", "..", "a.b.c", &token[..token.len() - 2]] {
            assert!(keys.claims(bad, now).is_none(), "{bad}");
        }
    }
}
