//! The certificate authority of the data directory, and the server's certificate from it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::ServerError;
use super::credentials::write_file;

/// What the server shows, and what clients trust.
pub(super) struct Pki {
    pub(super) acceptor: TlsAcceptor,
    pub(super) ca_pem: String,
}

/// Reads or makes the authority, and makes a certificate for the addresses and names.
pub(super) fn prepare(dir: &Path, addresses: &[SocketAddr], sans: &[String]) -> Result<Pki, ServerError> {
    let failed = |cause: String| ServerError::Certificate { path: dir.to_owned(), cause };
    let (ca_pem, ca_key) = authority(dir)?;
    let issuer = Issuer::new(authority_params(&ca_key), ca_key);
    let key = KeyPair::generate().map_err(|e| failed(e.to_string()))?;
    let params = server_params(addresses, sans).map_err(|e| failed(e.to_string()))?;
    let certificate = params.signed_by(&key, &issuer).map_err(|e| failed(e.to_string()))?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .map_err(|e| failed(e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Pki { acceptor: TlsAcceptor::from(Arc::new(config)), ca_pem })
}

fn server_params(addresses: &[SocketAddr], sans: &[String]) -> Result<CertificateParams, rcgen::Error> {
    let mut names: Vec<String> = ["localhost", "kubernetes", "127.0.0.1", "::1"].map(str::to_owned).into();
    names.extend(addresses.iter().map(|a| a.ip()).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string()));
    names.extend(sans.iter().cloned());
    names.sort();
    names.dedup();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "weft-apiserver");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    valid_for(&mut params, 2);
    Ok(params)
}

/// From yesterday, so that a client's clock may be a little behind, for some years.
fn valid_for(params: &mut CertificateParams, years: i16) {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let start = today.yesterday().unwrap_or(today);
    let part = |n: i8| u8::try_from(n).unwrap_or(1);
    params.not_before = rcgen::date_time_ymd(i32::from(start.year()), part(start.month()), part(start.day()));
    // The first of the month: 29 February is not in every year.
    params.not_after =
        rcgen::date_time_ymd(i32::from(start.year().saturating_add(years)), part(start.month()), 1);
}

/// The authority's certificate and key; both are kept, so that clients trust a restarted server.
fn authority(dir: &Path) -> Result<(String, KeyPair), ServerError> {
    let (cert_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
    let failed = |e: rcgen::Error| ServerError::Certificate { path: dir.to_owned(), cause: e.to_string() };
    if let (Ok(cert), Ok(key)) = (std::fs::read_to_string(&cert_path), std::fs::read_to_string(&key_path)) {
        return Ok((cert, KeyPair::from_pem(&key).map_err(failed)?));
    }
    let key = KeyPair::generate().map_err(failed)?;
    let cert = authority_params(&key).self_signed(&key).map_err(failed)?.pem();
    write_file(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
    write_file(&cert_path, cert.as_bytes(), 0o644)?;
    Ok((cert, key))
}

/// The authority follows from its key alone. Its name has some of the key in it, since two
/// authorities with one name confuse a client that knows both.
fn authority_params(key: &KeyPair) -> CertificateParams {
    let id: String = key.public_key_raw().iter().skip(1).take(4).map(|b| format!("{b:02x}")).collect();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("weft-ca-{id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, 10);
    params
}
