//! The certificate authority of the data directory, and what it signs.

use std::net::SocketAddr;
use std::path::Path;

use jiff::{Timestamp, ToSpan};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SigningKey,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::ServerError;
use super::credentials::write_file;

/// Days that the authority, the server's certificate and, if nothing else is said, a client's are good for.
const AUTHORITY_DAYS: u32 = 3650;
pub(super) const SERVER_DAYS: u32 = 365;
pub(crate) const CLIENT_DAYS: u32 = 365;

/// OIDs of a subject's organisation and common name (X.520).
const ORGANISATION: [u64; 4] = [2, 5, 4, 10];
const COMMON_NAME: [u64; 4] = [2, 5, 4, 3];
/// Where the subject is in a TBSCertificate with a version (RFC 5280, 4.1).
const SUBJECT: usize = 5;

/// Signs certificates of servers and clients.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub(super) pem: String,
}

/// A certificate and its key.
pub(super) struct Signed {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: KeyPair,
}

impl Signed {
    pub(super) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }
}

impl Authority {
    /// Reads `ca.crt` and `ca.key`, which an operator may have put there; makes them if there are none.
    pub(super) fn open(dir: &Path) -> Result<Self, ServerError> {
        let (cert_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        let failed =
            |e: rcgen::Error| ServerError::Certificate { path: dir.to_owned(), cause: e.to_string() };
        let (pem, key) = match (std::fs::read_to_string(&cert_path), std::fs::read_to_string(&key_path)) {
            (Ok(pem), Ok(key)) => (pem, KeyPair::from_pem(&key).map_err(failed)?),
            _ => {
                let key = KeyPair::generate().map_err(failed)?;
                let pem = params(&key).self_signed(&key).map_err(failed)?.pem();
                write_file(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
                write_file(&cert_path, pem.as_bytes(), 0o644)?;
                (pem, key)
            }
        };
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&pem, key).map_err(failed)?, pem })
    }

    /// Its certificate, as a verifier trusts it.
    pub(super) fn certificate(&self) -> Result<CertificateDer<'static>, String> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).map_err(|e| e.to_string())
    }

    /// A server's certificate for addresses and names.
    pub(super) fn server(&self, addresses: &[SocketAddr], sans: &[String]) -> Result<Signed, rcgen::Error> {
        let mut names: Vec<String> =
            ["localhost", "kubernetes", "127.0.0.1", "::1"].map(str::to_owned).into();
        names.extend(
            addresses.iter().map(|a| a.ip()).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string()),
        );
        names.extend(sans.iter().cloned());
        names.sort();
        names.dedup();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "weft-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, SERVER_DAYS)
    }

    /// A client's certificate: the common name is the user, each organisation a group.
    pub(super) fn client(&self, user: &str, groups: &[String], days: u32) -> Result<Signed, String> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let Signed { certificate, key } = self.sign(params, days).map_err(|e| e.to_string())?;
        // The library's names have one organisation at most.
        let certificate = with_subject(&certificate, &subject(user, groups), self.issuer.key())?;
        Ok(Signed { certificate, key })
    }

    fn sign(&self, mut params: CertificateParams, days: u32) -> Result<Signed, rcgen::Error> {
        let key = KeyPair::generate()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        valid_for(&mut params, days);
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        Ok(Signed { certificate, key })
    }
}

/// From yesterday, so that a client's clock may be a little behind.
fn valid_for(params: &mut CertificateParams, days: u32) {
    let today = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let part = |n: i8| u8::try_from(n).unwrap_or(1);
    let at = |d: jiff::civil::Date| rcgen::date_time_ymd(i32::from(d.year()), part(d.month()), part(d.day()));
    params.not_before = at(today.yesterday().unwrap_or(today));
    params.not_after = at(today.saturating_add(i64::from(days).days()));
}

/// The parameters of a new authority. Its name has some of the key in it, since two authorities with
/// one name confuse a client that knows both.
fn params(key: &KeyPair) -> CertificateParams {
    let id: String = key.public_key_raw().iter().skip(1).take(4).map(|b| format!("{b:02x}")).collect();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("weft-ca-{id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, AUTHORITY_DAYS);
    params
}

/// A name in DER.
fn subject(user: &str, groups: &[String]) -> Vec<u8> {
    let one = |oid: [u64; 4], text: &str, name: &mut yasna::DERWriterSeq<'_>| {
        name.next().write_set(|set| {
            set.next().write_sequence(|pair| {
                pair.next().write_oid(&yasna::models::ObjectIdentifier::from_slice(&oid));
                pair.next().write_utf8_string(text);
            });
        });
    };
    yasna::construct_der(|writer| {
        writer.write_sequence(|name| {
            groups.iter().for_each(|group| one(ORGANISATION, group, name));
            one(COMMON_NAME, user, name);
        });
    })
}

/// The certificate with another subject, signed anew.
fn with_subject(
    certificate: &[u8],
    subject: &[u8],
    key: &KeyPair,
) -> Result<CertificateDer<'static>, String> {
    let parts = |der: &[u8]| yasna::parse_der(der, |r| r.collect_sequence_of(|part| part.read_der()));
    let mut whole = parts(certificate).map_err(|e| e.to_string())?;
    let tbs = whole.first_mut().ok_or("the certificate is empty")?;
    let mut fields = parts(tbs).map_err(|e| e.to_string())?;
    *fields.get_mut(SUBJECT).ok_or("the certificate has no subject")? = subject.to_vec();
    let join = |parts: &[Vec<u8>]| {
        yasna::construct_der(|w| {
            w.write_sequence(|seq| parts.iter().for_each(|part| seq.next().write_der(part)));
        })
    };
    *tbs = join(&fields);
    let signature = key.sign(tbs).map_err(|e| e.to_string())?;
    let signature = yasna::construct_der(|w| w.write_bitvec_bytes(&signature, signature.len() * 8));
    *whole.last_mut().ok_or("the certificate has no signature")? = signature;
    Ok(join(&whole).into())
}
