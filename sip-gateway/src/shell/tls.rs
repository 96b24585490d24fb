//! TLS 1.2 and 1.3 on streams (RFC 3261 §26.3, RFC 5922): whom we are, and whom we believe.
//!
//! | handshake | the other end must show | we show |
//! |---|---|---|
//! | on a stream that we accept, `client_ca` given | a certificate of that CA; the core asks for its names | our certificate |
//! | on a stream that we accept otherwise | nothing: its address is all that tells who it is | our certificate |
//! | on a stream that we open | a certificate of the peer's CA with the peer's name (§7.2) | our certificate, if asked |
//!
//! Sessions are not resumed: streams are few and last, and each new one is judged by what is in force then.
//! Left out: revocation, which a district's own CA has no service for.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, InconsistentKeys, RootCertStore,
    ServerConfig, SignatureScheme, SupportedProtocolVersion,
};
use tokio::sync::watch;

use super::certificate;
use crate::PeerId;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// Why certificates or a key cannot be used. No variant holds anything of a key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No PEM certificate in it, or one that cannot be read.
    #[error("it holds no readable certificate in PEM form")]
    NoCertificate,
    /// No PEM private key in it.
    #[error("it holds no private key in PEM form, or an encrypted one")]
    NoKey,
    /// A kind of key that TLS cannot use.
    #[error("its private key is none that can be used: ECDSA P-256 or P-384, Ed25519, RSA from 2048 bits")]
    UnusableKey,
    /// The key is another certificate's.
    #[error("the private key does not belong to the certificate")]
    KeyOfAnother,
    /// Neither a domain name nor an address.
    #[error("\"{name}\" cannot be a certificate's name")]
    Name {
        /// The name.
        name: String,
    },
    /// The TLS library objects.
    #[error("TLS cannot be set up")]
    Setup {
        /// What it says.
        source: rustls::Error,
    },
}

/// Our own certificate, with its chain, and its private key.
#[derive(Clone)]
pub struct Identity {
    key: Arc<CertifiedKey>,
    expires_s: u64,
}

/// Never the key.
impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Identity").field("expires_s", &self.expires_s).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the chain, our certificate first, and its key.
    ///
    /// # Errors
    /// If one of them cannot be read, or they do not belong together.
    pub fn from_pem(certificate: &[u8], private_key: &[u8]) -> Result<Self, TlsError> {
        let chain = certificates(certificate)?;
        let expiries: Option<Vec<u64>> = chain.iter().map(|one| certificate::expires_s(one)).collect();
        let expires_s = expiries.and_then(|all| all.into_iter().min()).ok_or(TlsError::NoCertificate)?;
        let key = PrivateKeyDer::from_pem_slice(private_key).map_err(|_| TlsError::NoKey)?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::KeyOfAnother,
            rustls::Error::InvalidCertificate(_) => TlsError::NoCertificate,
            _ => TlsError::UnusableKey,
        })?;
        Ok(Self { key: Arc::new(key), expires_s })
    }

    /// When the first certificate of the chain expires, in Unix seconds.
    pub const fn expires_s(&self) -> u64 {
        self.expires_s
    }
}

/// Certificate authorities that are believed.
#[derive(Clone, Debug)]
pub struct Authorities(Arc<RootCertStore>);

impl Authorities {
    /// Reads one or more.
    ///
    /// # Errors
    /// If there is none, or one that cannot be read.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem)? {
            roots.add(certificate).map_err(|_| TlsError::NoCertificate)?;
        }
        Ok(Self(Arc::new(roots)))
    }

    /// Takes those of the operating system; one that cannot be read is passed over, as every user of such a
    /// store must.
    pub fn from_system(der: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(der);
        Self(Arc::new(roots))
    }
}

/// A peer to which streams are opened by TLS.
#[derive(Clone, Debug)]
pub struct SecurePeer {
    /// Its name in the log.
    pub peer: String,
    /// The domain or address that its certificate must be for.
    pub name: String,
    /// Who may have signed that.
    pub authorities: Authorities,
}

/// All that handshakes need.
#[derive(Debug)]
pub struct Tls {
    pub(super) server: Arc<ServerConfig>,
    /// By [`PeerId`].
    peers: Vec<Option<Arc<Dialling>>>,
}

/// How a peer's stream is secured.
#[derive(Debug)]
pub(super) struct Dialling {
    pub(super) peer: String,
    pub(super) server_name: ServerName<'static>,
    pub(super) client: Arc<ClientConfig>,
}

impl Tls {
    /// With our identity, the authorities of those who must show a certificate when they come (nobody must
    /// without), and the peers by [`PeerId`] that are reached by TLS.
    ///
    /// # Errors
    /// If a peer's name is none, or the library objects.
    pub fn new(
        identity: &Identity,
        client_ca: Option<Authorities>,
        peers: Vec<Option<SecurePeer>>,
    ) -> Result<Self, TlsError> {
        let own = Arc::new(SingleCertAndKey::from(Arc::clone(&identity.key)));
        let server = Arc::new(server(Arc::clone(&own), client_ca)?);
        let dialling = |peer: Option<SecurePeer>| {
            peer.map(|peer| Dialling::new(peer, Arc::clone(&own)).map(Arc::new)).transpose()
        };
        let peers = peers.into_iter().map(dialling).collect::<Result<_, _>>()?;
        Ok(Self { server, peers })
    }

    pub(super) fn dialling(&self, peer: PeerId) -> Option<Arc<Dialling>> {
        self.peers.get(peer.0)?.clone()
    }
}

fn server(own: Arc<SingleCertAndKey>, client_ca: Option<Authorities>) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(provider());
    let clients = match client_ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(Authorities(roots)) => WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|_| TlsError::NoCertificate)?,
    };
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&VERSIONS)
        .map_err(|source| TlsError::Setup { source })?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(own);
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(server)
}

impl Dialling {
    fn new(peer: SecurePeer, own: Arc<SingleCertAndKey>) -> Result<Self, TlsError> {
        let SecurePeer { peer, name, authorities: Authorities(roots) } = peer;
        let server_name =
            ServerName::try_from(name.clone()).map_err(|_| TlsError::Name { name: name.clone() })?;
        let provider = Arc::new(provider());
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Arc::new(DomainVerifier { roots, name, algorithms });
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&VERSIONS)
            .map_err(|source| TlsError::Setup { source })?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(own);
        client.resumption = Resumption::disabled();
        Ok(Self { peer, server_name, client: Arc::new(client) })
    }
}

/// The library's own judgement of a chain, and RFC 5922's of a name: that of the web knows wildcards and no
/// `sip:` URIs.
#[derive(Debug)]
struct DomainVerifier {
    roots: Arc<RootCertStore>,
    name: String,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for DomainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        if certificate::names(end_entity).iter().any(|name| certificate::is_same(name, &self.name)) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What handshakes go by now. Replaced, it holds for those that begin from then on; streams that stand stay.
#[derive(Clone, Debug)]
pub struct TlsInForce(watch::Sender<Option<Arc<Tls>>>);

impl Default for TlsInForce {
    /// None yet: every handshake fails.
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl TlsInForce {
    /// Puts another in its place.
    pub fn replace(&self, tls: Tls) {
        self.0.send_replace(Some(Arc::new(tls)));
    }

    pub(super) fn current(&self) -> Option<Arc<Tls>> {
        self.0.borrow().clone()
    }
}

/// Why a handshake failed, without a name of anybody.
pub(super) fn reason(error: &io::Error) -> &'static str {
    use rustls::Error::{AlertReceived, InvalidCertificate, NoCertificatesPresented, PeerIncompatible};
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(InvalidCertificate(fault)) => reason_of_certificate(fault),
        Some(NoCertificatesPresented) => "it shows no certificate",
        Some(AlertReceived(alert)) => reason_of_alert(*alert),
        Some(PeerIncompatible(_)) => "no version or cipher in common",
        Some(_) => "it does not speak TLS as it should",
        None => "the connection broke",
    }
}

fn reason_of_certificate(fault: &CertificateError) -> &'static str {
    match fault {
        CertificateError::UnknownIssuer => "its certificate is of no authority that is believed here",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet"
        }
        CertificateError::NotValidForName => "its certificate is for another name",
        _ => "its certificate is not valid",
    }
}

fn reason_of_alert(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => "it refuses our certificate",
        AlertDescription::CertificateRequired => "it wants a certificate of ours",
        AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => {
            "no version or cipher in common"
        }
        _ => "it broke the handshake off",
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or(TlsError::NoCertificate)
}

fn provider() -> CryptoProvider {
    ring::default_provider()
}
