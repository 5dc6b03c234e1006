//! The administrator's token and kubeconfig.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::ServerError;
use crate::files::sync_folder;
use crate::strategy::random_bytes;

/// Writes a file whole or not at all.
pub(super) fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<(), ServerError> {
    let failed = |source| ServerError::File { op: "write", path: path.to_owned(), source };
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file =
            std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&fresh)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        sync_folder(path)
    };
    write().map_err(|e| {
        // What is half written must not stay; the first error is the one to tell.
        let _ = std::fs::remove_file(&fresh);
        failed(e)
    })
}

/// Writes a file whole or not at all, readable by its owner only.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), ServerError> {
    write_file(path, content, 0o600)
}

/// The token of the data directory; a new random one if there is none yet.
pub(super) fn token(dir: &Path) -> Result<String, ServerError> {
    let path = dir.join("admin.token");
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().len() >= 32 => return Ok(text.trim().to_owned()),
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(ServerError::File { op: "read", path, source });
        }
        _ => {}
    }
    let token = URL_SAFE_NO_PAD.encode(random_bytes::<32>());
    write_file(&path, token.as_bytes(), 0o600)?;
    Ok(token)
}

/// The URL by which a client on this machine reaches an address.
pub(super) fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("https://{}", SocketAddr::new(ip, address.port()))
}

/// Writes `admin.kubeconfig`. JSON is YAML, and needs no quoting rules.
pub(super) fn write_kubeconfig(dir: &Path, url: &str, ca_pem: &str, token: &str) -> Result<(), ServerError> {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "weft",
        "clusters": [{"name": "weft", "cluster": {"server": url,
            "certificate-authority-data": STANDARD.encode(ca_pem)}}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "weft", "context": {"cluster": "weft", "user": "admin"}}],
    });
    write_file(&dir.join("admin.kubeconfig"), format!("{config:#}\n").as_bytes(), 0o600)
}
