//! Certificates and keys that kube-apiserver is given, so that clients can check it under any of its addresses.

use std::path::Path;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// Writes `ca.crt`, `server.crt`, `server.key`, and the key of ServiceAccounts' tokens, `accounts.key` and
/// `accounts.pub`; returns the authority's certificate.
pub(crate) fn write(dir: &Path, names: &[&str]) -> anyhow::Result<String> {
    let ca_key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "judge");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(params, ca_key);

    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let server = params.signed_by(&key, &issuer)?.pem();
    let accounts = KeyPair::generate()?;

    let keep = |name: &str, text: &str| {
        std::fs::write(dir.join(name), text).with_context(|| format!("cannot write {name}"))
    };
    keep("ca.crt", &ca)?;
    keep("server.crt", &server)?;
    keep("server.key", &key.serialize_pem())?;
    keep("accounts.key", &accounts.serialize_pem())?;
    keep("accounts.pub", &accounts.public_key_pem())?;
    Ok(ca)
}
