//! Certificates for an etcd and its clients.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// Files: an authority, and what it signed, certificate and key.
pub(crate) struct Pki {
    pub(crate) ca: PathBuf,
    pub(crate) server: (PathBuf, PathBuf),
    pub(crate) client: (PathBuf, PathBuf),
}

impl Pki {
    pub(crate) fn new(dir: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "etcd-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = dir.join("ca.crt");
        std::fs::write(&ca, params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(params, key);
        let signed = |name: &str, usage: ExtendedKeyUsagePurpose| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            // etcd's own gateway is a client of its server.
            params.extended_key_usages = vec![usage, ExtendedKeyUsagePurpose::ClientAuth];
            let files = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
            std::fs::write(&files.0, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
            std::fs::write(&files.1, key.serialize_pem()).unwrap();
            files
        };
        let server = signed("server", ExtendedKeyUsagePurpose::ServerAuth);
        let client = signed("client", ExtendedKeyUsagePurpose::ClientAuth);
        Self { ca, server, client }
    }
}
