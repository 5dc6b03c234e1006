//! What the server shows and whom it trusts, read again when its files change.

use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::authority::{Authority, SERVER_DAYS};
use super::{ServerConfig, ServerError, ranges};
use crate::auth::validity_of;

/// How often the files are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(5);
/// A certificate that the server made is made anew when this much of its time is left.
const LEFT: SignedDuration = SignedDuration::from_hours(24 * SERVER_DAYS as i64 / 3);

/// The certificates in use.
pub(super) struct Tls {
    sources: Sources,
    current: RwLock<Current>,
}

/// Where they come from.
struct Sources {
    dir: PathBuf,
    addresses: Vec<SocketAddr>,
    sans: Vec<String>,
    /// The certificate chain and its key, if the operator has given them.
    given: Option<(PathBuf, PathBuf)>,
    client_ca: Option<PathBuf>,
    authority: Authority,
}

struct Current {
    acceptor: TlsAcceptor,
    files: Vec<State>,
    good: Option<Range<Timestamp>>,
}

/// What tells that a file changed: its time, its size, its inode.
type State = Option<(i64, i64, u64, u64)>;

impl Tls {
    pub(super) fn open(
        config: &ServerConfig,
        service_cidrs: &[IpNet],
        addresses: &[SocketAddr],
    ) -> Result<Self, ServerError> {
        // By these names and addresses pods know the Service `kubernetes`.
        let names = ["", ".default", ".default.svc", ".default.svc.cluster.local"];
        let names = names.map(|rest| format!("kubernetes{rest}"));
        let ips = service_cidrs.iter().filter_map(ranges::first).map(|ip| ip.to_string());
        let sources = Sources {
            dir: config.data_dir.clone(),
            addresses: addresses.to_vec(),
            sans: config.tls_sans.iter().cloned().chain(names).chain(ips).collect(),
            given: config.tls_cert_file.clone().zip(config.tls_private_key_file.clone()),
            client_ca: config.client_ca_file.clone(),
            authority: Authority::open(&config.data_dir)?,
        };
        let current = RwLock::new(sources.load()?);
        Ok(Self { sources, current })
    }

    /// What a client of this server must trust: the authority, and the given chain.
    pub(super) fn trust_pem(&self) -> String {
        let given = self.sources.given.as_ref().and_then(|(chain, _)| std::fs::read_to_string(chain).ok());
        format!("{}{}", self.sources.authority.pem, given.unwrap_or_default())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).acceptor.clone()
    }

    /// Loads anew what changed or is about to end; what was good stays in use when the new is not.
    pub(super) fn refresh(&self) {
        let files = self.sources.files();
        let due = {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            let changed = current.files != files;
            current.files = files;
            // A clock that jumps leaves the time for which it was made at either end.
            changed || current.good.as_ref().is_some_and(|good| !good.contains(&Timestamp::now()))
        };
        if !due {
            return;
        }
        match self.sources.load() {
            Ok(fresh) => {
                tracing::info!("certificates loaded anew");
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
            }
            Err(error) => tracing::warn!(%error, "the old certificates stay in use"),
        }
    }
}

impl Sources {
    fn load(&self) -> Result<Current, ServerError> {
        let files = self.files();
        let failed = |cause: String| ServerError::Certificate { path: self.dir.clone(), cause };
        let (chain, key, good) = self.shown()?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| failed(e.to_string()))?
            .with_client_cert_verifier(self.verifier()?)
            .with_single_cert(chain, key)
            .map_err(|e| failed(e.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Current { acceptor: TlsAcceptor::from(Arc::new(config)), files, good })
    }

    /// What the given files are like now.
    fn files(&self) -> Vec<State> {
        let pair = self.given.as_ref().map(|(chain, key)| [chain, key]);
        pair.into_iter().flatten().chain(&self.client_ca).map(|path| state(path)).collect()
    }

    /// The certificate to show, its key, and the time in which it need not be made anew.
    fn shown(&self) -> Result<Shown, ServerError> {
        let Some((chain, key)) = &self.given else {
            let failed =
                |e: rcgen::Error| ServerError::Certificate { path: self.dir.clone(), cause: e.to_string() };
            let signed = self.authority.server(&self.addresses, &self.sans).map_err(failed)?;
            let validity = validity_of(&signed.certificate);
            let good = validity.and_then(|(start, end)| Some(start..end.checked_sub(LEFT).ok()?));
            return Ok((vec![signed.certificate.clone()], signed.private_key(), good));
        };
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|e| ServerError::Certificate { path: key.clone(), cause: e.to_string() })?;
        Ok((certificates(chain)?, private, None))
    }

    /// Trusts clients of the authority, and of the given one.
    fn verifier(&self) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, ServerError> {
        let failed = |cause: String| ServerError::Certificate { path: self.dir.clone(), cause };
        let mut trusted = vec![self.authority.certificate().map_err(failed)?];
        if let Some(path) = &self.client_ca {
            trusted.extend(certificates(path)?);
        }
        let mut roots = rustls::RootCertStore::empty();
        for certificate in trusted {
            roots.add(certificate).map_err(|e| failed(e.to_string()))?;
        }
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|e| failed(e.to_string()))
    }
}

type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, Option<Range<Timestamp>>);

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ServerError> {
    let failed = |cause: String| ServerError::Certificate { path: path.to_owned(), cause };
    let all = CertificateDer::pem_file_iter(path).map_err(|e| failed(e.to_string()))?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(|e| failed(e.to_string()))?;
    if all.is_empty() { Err(failed("it has no certificate".to_owned())) } else { Ok(all) }
}

fn state(path: &Path) -> State {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.mtime(), metadata.mtime_nsec(), metadata.size(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_good_for_the_time_around_its_making() {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources {
            dir: dir.path().to_owned(),
            addresses: Vec::new(),
            sans: Vec::new(),
            given: None,
            client_ca: None,
            authority: Authority::open(dir.path()).unwrap(),
        };
        let good = sources.shown().unwrap().2.unwrap();
        let in_days = |days: i64| Timestamp::now() + SignedDuration::from_hours(24 * days);
        assert!(good.contains(&in_days(0)) && good.contains(&in_days(200)));
        assert!(!good.contains(&in_days(300)), "it is made anew before it ends");
        assert!(!good.contains(&in_days(-3)), "the clock went back");
    }
}
