//! Kubeconfigs of users that the data directory's authority vouches for.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::ServerError;
use super::authority::{Authority, CLIENT_DAYS};

/// A user to sign a client certificate for.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The user's name.
    pub user: String,
    /// The user's groups.
    pub groups: Vec<String>,
    /// Days for which the certificate is good; None is a year.
    pub days: Option<u32>,
}

/// A kubeconfig, as JSON, by which a client is `identity`. The server and whom to trust are taken from
/// the data directory's `admin.kubeconfig`, the server from `server` if it is given.
pub fn kubeconfig(data_dir: &Path, identity: &Identity, server: Option<&str>) -> Result<String, ServerError> {
    let failed = |cause: String| ServerError::Certificate { path: data_dir.to_owned(), cause };
    let admin = data_dir.join("admin.kubeconfig");
    let text = std::fs::read_to_string(&admin);
    let text = text.map_err(|source| ServerError::File { op: "read", path: admin, source })?;
    let mut config: Value = serde_json::from_str(&text).map_err(|e| failed(e.to_string()))?;
    if identity.user.is_empty() {
        return Err(failed("a user must have a name".to_owned()));
    }
    let days = identity.days.unwrap_or(CLIENT_DAYS);
    let signed = Authority::open(data_dir)?.client(&identity.user, &identity.groups, days).map_err(failed)?;
    let key = signed.key.serialize_pem();
    config["users"] = json!([{"name": identity.user, "user": {
        "client-certificate-data": STANDARD.encode(pem(&signed.certificate)),
        "client-key-data": STANDARD.encode(key),
    }}]);
    config["contexts"][0]["context"]["user"] = json!(identity.user);
    if let Some(server) = server {
        config["clusters"][0]["cluster"]["server"] = json!(server);
    }
    Ok(format!("{config:#}\n"))
}

/// A certificate as text (RFC 7468).
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
