//! The user that a client certificate names.

use jiff::Timestamp;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::user::User;

/// A certificate whose chain the TLS handshake has verified.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    user: User,
    not_after: Timestamp,
}

impl Certificate {
    /// Reads a certificate; None if it names nobody: the common name is the user, each organisation a group.
    pub(crate) fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok().filter(|name| !name.is_empty())?;
        let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned);
        let mut user = User::known(name, groups.collect());
        let digest = ring::digest::digest(&ring::digest::SHA256, der);
        let digest: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        user.extra.insert(
            "authentication.kubernetes.io/credential-id".to_owned(),
            vec![format!("X509SHA256={digest}")],
        );
        let not_after = Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?;
        Some(Self { user, not_after })
    }

    /// The user, as long as the certificate is valid: a connection may outlive it.
    pub(super) fn user(&self, now: Timestamp) -> Option<User> {
        (now <= self.not_after).then(|| self.user.clone())
    }
}

/// When a certificate begins and ends.
pub(crate) fn validity_of(der: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let (validity, at) = (certificate.validity(), |seconds| Timestamp::from_second(seconds).ok());
    Some((at(validity.not_before.timestamp())?, at(validity.not_after.timestamp())?))
}
