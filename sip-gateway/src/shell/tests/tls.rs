//! TLS over real sockets: who is believed, what is shown, reload, and how long a handshake may take.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType, date_time_ymd};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::super::tls::{Authorities, Identity, SecurePeer, Tls, TlsError};
use super::*;

/// Our own name, and the peer's.
const OURS: &str = "gateway.example.org";
const THEIRS: &str = "pbx.example.org";

const LISTENER: [(Transport, &str); 1] = [(Transport::Tls, "127.0.0.1:0")];

/// A certificate authority.
struct Ca {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
struct Issued {
    certificate: String,
    key: String,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { pem, der, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, names: Vec<SanType>) -> Issued {
        self.issue_until(2096, names)
    }

    fn issue_until(&self, year: i32, names: Vec<SanType>) -> Issued {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { certificate, key: key.serialize_pem() }
    }

    fn authorities(&self) -> Authorities {
        Authorities::from_pem(self.pem.as_bytes()).unwrap()
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        Arc::new(roots)
    }
}

impl Issued {
    fn identity(&self) -> Identity {
        Identity::from_pem(self.certificate.as_bytes(), self.key.as_bytes()).unwrap()
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A client as the far end has it: it believes `ca`, and shows what it is given.
fn client(ca: &Ca, shown: Option<&Issued>, version: &'static SupportedProtocolVersion) -> TlsConnector {
    use rustls::pki_types::pem::PemObject as _;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(ca.roots());
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let chain = CertificateDer::pem_slice_iter(issued.certificate.as_bytes());
            let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}

/// A server as the far end has it, which asks for certificates of `ca`.
fn far_server(ca: &Ca, own: &Issued) -> TlsAcceptor {
    use rustls::pki_types::pem::PemObject as _;
    let verifier = WebPkiClientVerifier::builder_with_provider(ca.roots(), provider()).build().unwrap();
    let chain = CertificateDer::pem_slice_iter(own.certificate.as_bytes()).map(Result::unwrap).collect();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

impl Shell {
    /// A gateway that shows `own` and asks for certificates of `clients`.
    fn secured(own: &Issued, clients: Option<&Ca>) -> Self {
        let shell = Self::new(&LISTENER, QUICK);
        shell.show(own, clients);
        shell
    }

    fn show(&self, own: &Issued, clients: Option<&Ca>) {
        let tls = Tls::new(&own.identity(), clients.map(Ca::authorities), Vec::new()).unwrap();
        self.sockets.tls().replace(tls);
    }

    /// Accepts and admits the stream that is being opened.
    async fn admit(&mut self) -> StreamId {
        let stream = self.opened().await;
        self.sockets.secure(stream);
        stream
    }

    async fn ready(&mut self, wanted: StreamId) -> Vec<String> {
        match self.next().await {
            Input::StreamReady { stream, certified } if stream == wanted => certified,
            other => panic!("{other:?}"),
        }
    }

    /// Connects a client while the gateway admits it. The client's view of the handshake may be better than
    /// ours: in TLS 1.3 its certificate is judged after it is done.
    async fn shake(&mut self, client: &TlsConnector) -> (StreamId, io::Result<client::TlsStream<TcpStream>>) {
        let tcp = TcpStream::connect(self.at[0]).await.unwrap();
        let name = ServerName::try_from(OURS).unwrap();
        let stream = self.admit().await;
        (stream, timeout(DEADLINE, client.connect(name, tcp)).await.unwrap())
    }
}

/// RFC 3261 §26.3.1, RFC 5922 §7.1.
#[tokio::test]
async fn a_client_of_our_ca_is_told_by_its_names_in_both_versions() {
    let ca = Ca::new();
    let mut shell = Shell::secured(&ca.issue(vec![dns(OURS)]), Some(&ca));
    let theirs = ca.issue(vec![dns(THEIRS), dns("second.example.org")]);
    for version in [&TLS12, &TLS13] {
        let (stream, far) = shell.shake(&client(&ca, Some(&theirs), version)).await;
        assert_eq!(shell.ready(stream).await, [THEIRS, "second.example.org"]);
        let mut far = far.unwrap();
        far.write_all(b"request").await.unwrap();
        assert_eq!(shell.next().await, Input::StreamBytes { stream, bytes: Bytes::from_static(b"request") });
        shell.sockets.send_stream(stream, Bytes::from_static(b"answer"));
        shell.sockets.close_stream(stream);
        let mut all = Vec::new();
        timeout(DEADLINE, far.read_to_end(&mut all)).await.unwrap().unwrap();
        assert_eq!(all, b"answer", "and a proper end");
        assert_eq!(shell.until_closed(stream).await, b"");
    }
    assert_eq!(shell.sockets.counters().handshakes_failed, 0);
}

#[tokio::test]
async fn without_a_client_ca_nobody_is_asked() {
    let ca = Ca::new();
    let mut shell = Shell::secured(&ca.issue(vec![dns(OURS)]), None);
    let (stream, far) = shell.shake(&client(&ca, None, &TLS13)).await;
    assert!(shell.ready(stream).await.is_empty() && far.is_ok());
}

/// RFC 3261 §26.3.1.
#[tokio::test]
async fn a_client_is_refused_without_certificate_of_another_ca_or_expired() {
    let (ca, other) = (Ca::new(), Ca::new());
    let mut shell = Shell::secured(&ca.issue(vec![dns(OURS)]), Some(&ca));
    let stranger = other.issue(vec![dns(THEIRS)]);
    let expired = ca.issue_until(2001, vec![dns(THEIRS)]);
    for shown in [None, Some(&stranger), Some(&expired)] {
        for version in [&TLS12, &TLS13] {
            let (stream, far) = shell.shake(&client(&ca, shown, version)).await;
            assert_eq!(shell.next().await, Input::StreamClosed { stream }, "never ready");
            if let Ok(mut far) = far {
                assert!(timeout(DEADLINE, far.read(&mut [0])).await.unwrap().is_err());
            }
        }
    }
    assert_eq!(shell.sockets.counters().handshakes_failed, 6);
}

#[tokio::test]
async fn whoever_is_not_let_in_gets_not_a_byte() {
    let ca = Ca::new();
    let mut shell = Shell::secured(&ca.issue(vec![dns(OURS)]), None);
    let tcp = TcpStream::connect(shell.at[0]).await.unwrap();
    let hello = client(&ca, None, &TLS13);
    let far = tokio::spawn(async move { hello.connect(ServerName::try_from(OURS).unwrap(), tcp).await });
    let stream = shell.opened().await;
    shell.sockets.close_stream(stream);
    assert_eq!(shell.next().await, Input::StreamClosed { stream });
    let refused = timeout(DEADLINE, far).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(refused.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_handshake_that_stalls_is_ended_and_one_that_is_none_too() {
    let ca = Ca::new();
    let mut shell = Shell::new(&LISTENER, Patience { handshake: Duration::from_millis(50), ..QUICK });
    shell.show(&ca.issue(vec![dns(OURS)]), None);
    // Half a ClientHello, nothing, and SIP.
    for said in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"", b"OPTIONS sip:x SIP/2.0\r\n\r\n"] {
        let mut far = TcpStream::connect(shell.at[0]).await.unwrap();
        far.write_all(said).await.unwrap();
        let stream = shell.admit().await;
        assert_eq!(shell.next().await, Input::StreamClosed { stream });
    }
    assert_eq!(shell.sockets.counters().handshakes_failed, 3);
}

/// A far end with this certificate, and what comes of our stream to it when it should be `name`.
async fn dial(ca: &Ca, theirs: &Issued, name: &str) -> (Shell, Option<server::TlsStream<TcpStream>>) {
    let mut shell = Shell::new(&LISTENER, Patience { connect: DEADLINE, ..QUICK });
    let peer = SecurePeer { peer: "pbx".to_owned(), name: name.to_owned(), authorities: ca.authorities() };
    let ours = ca.issue(vec![dns(OURS)]);
    shell.sockets.tls().replace(Tls::new(&ours.identity(), None, vec![Some(peer)]).unwrap());
    let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = StreamId(1);
    shell.sockets.connect(stream, ListenerId(0), PEER, far.local_addr().unwrap());
    shell.sockets.send_stream(stream, Bytes::from_static(b"hello"));
    let (tcp, _) = timeout(DEADLINE, far.accept()).await.unwrap().unwrap();
    let shaken = timeout(DEADLINE, far_server(ca, theirs).accept(tcp)).await.unwrap();
    match shell.next().await {
        Input::StreamReady { .. } => (shell, Some(shaken.unwrap())),
        Input::StreamClosed { .. } => {
            assert_eq!(shell.sockets.counters().connects_failed, 1);
            (shell, None)
        }
        other => panic!("{other:?}"),
    }
}

/// RFC 5922 §7.2.
#[tokio::test]
async fn our_stream_shows_our_certificate_to_a_peer_with_its_name() {
    let ca = Ca::new();
    let address = SanType::IpAddress("127.0.0.1".parse().unwrap());
    let uri = SanType::URI("sip:pbx.example.org".try_into().unwrap());
    let cases = [(dns("PBX.example.org"), THEIRS), (address, "127.0.0.1"), (uri, THEIRS)];
    for (san, name) in cases {
        let (shell, far) = dial(&ca, &ca.issue(vec![san]), name).await;
        let mut far = far.expect("a handshake");
        let shown = far.get_ref().1.peer_certificates().unwrap().to_vec();
        assert_eq!(super::super::certificate::names(&shown[0]), [OURS]);
        let mut buffer = [0; 5];
        timeout(DEADLINE, far.read_exact(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(&buffer, b"hello");
        drop(shell);
    }
}

/// RFC 5922 §7.2.
#[tokio::test]
async fn our_stream_refuses_another_name_another_ca_and_an_expired_certificate() {
    let (ca, other) = (Ca::new(), Ca::new());
    let uri = SanType::URI("sip:other.example.org".try_into().unwrap());
    let cases = [
        ca.issue(vec![dns("other.example.org")]),
        ca.issue(vec![dns("*.example.org")]),
        // Where there is a sip: URI, no DNS name counts.
        ca.issue(vec![dns(THEIRS), uri]),
        ca.issue(Vec::new()),
        ca.issue_until(2001, vec![dns(THEIRS)]),
        other.issue(vec![dns(THEIRS)]),
    ];
    for theirs in cases {
        let (_shell, far) = dial(&ca, &theirs, THEIRS).await;
        assert!(far.is_none());
    }
}

#[tokio::test]
async fn a_peer_that_is_not_known_by_tls_cannot_be_dialled() {
    let mut shell = Shell::new(&LISTENER, QUICK);
    let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
    shell.sockets.connect(StreamId(1), ListenerId(0), PEER, far.local_addr().unwrap());
    assert_eq!(shell.next().await, Input::StreamClosed { stream: StreamId(1) });
}

#[tokio::test]
async fn a_stream_that_is_closed_while_it_is_connected_sends_nothing() {
    let ca = Ca::new();
    let mut shell = Shell::new(&LISTENER, Patience { connect: DEADLINE, ..QUICK });
    let peer = SecurePeer { peer: "pbx".to_owned(), name: THEIRS.to_owned(), authorities: ca.authorities() };
    let ours = ca.issue(vec![dns(OURS)]);
    shell.sockets.tls().replace(Tls::new(&ours.identity(), None, vec![Some(peer)]).unwrap());
    let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = StreamId(1);
    shell.sockets.connect(stream, ListenerId(0), PEER, far.local_addr().unwrap());
    shell.sockets.send_stream(stream, Bytes::from_static(b"late"));
    // The far end has taken the connection, and does not shake hands.
    let (mut tcp, _) = timeout(DEADLINE, far.accept()).await.unwrap().unwrap();
    shell.sockets.close_stream(stream);
    assert_eq!(shell.next().await, Input::StreamClosed { stream });
    let mut all = Vec::new();
    // It may have been reset.
    let _ = timeout(DEADLINE, tcp.read_to_end(&mut all)).await.unwrap();
    assert!(!all.windows(4).any(|window| window == b"late"));
}

#[tokio::test]
async fn another_certificate_is_for_new_handshakes_and_streams_stay() {
    let (old_ca, new_ca) = (Ca::new(), Ca::new());
    let mut shell = Shell::secured(&old_ca.issue(vec![dns(OURS)]), None);
    let (stream, far) = shell.shake(&client(&old_ca, None, &TLS13)).await;
    shell.ready(stream).await;
    let mut far = far.unwrap();

    shell.show(&new_ca.issue(vec![dns(OURS)]), None);
    let (refused, old) = shell.shake(&client(&old_ca, None, &TLS13)).await;
    assert!(old.is_err(), "the old certificate is not shown any more");
    assert_eq!(shell.next().await, Input::StreamClosed { stream: refused });
    let (second, new) = shell.shake(&client(&new_ca, None, &TLS13)).await;
    shell.ready(second).await;
    assert!(new.is_ok());

    far.write_all(b"still here").await.unwrap();
    assert_eq!(shell.next().await, Input::StreamBytes { stream, bytes: Bytes::from_static(b"still here") });
    shell.sockets.send_stream(stream, Bytes::from_static(b"so are we"));
    let mut buffer = [0; 9];
    timeout(DEADLINE, far.read_exact(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(&buffer, b"so are we");
}

#[test]
fn what_cannot_be_used_is_told_and_shows_no_key() {
    let ca = Ca::new();
    let (one, other) = (ca.issue(vec![dns(OURS)]), ca.issue(vec![dns(OURS)]));
    let (certificate, key) = (one.certificate.as_bytes(), one.key.as_bytes());
    let identity = |certificate, key| Identity::from_pem(certificate, key).unwrap_err();
    assert!(matches!(identity(certificate, other.key.as_bytes()), TlsError::KeyOfAnother));
    assert!(matches!(identity(certificate, certificate), TlsError::NoKey));
    assert!(matches!(identity(certificate, b""), TlsError::NoKey));
    assert!(matches!(identity(key, key), TlsError::NoCertificate));
    let broken = one.certificate.replacen("MII", "MIJ", 1);
    assert!(matches!(identity(broken.as_bytes(), key), TlsError::NoCertificate));
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(matches!(identity(certificate, no_key.as_bytes()), TlsError::UnusableKey));
    assert!(matches!(Authorities::from_pem(key).unwrap_err(), TlsError::NoCertificate));
    let peer = |name: &str| SecurePeer {
        peer: "pbx".to_owned(),
        name: name.to_owned(),
        authorities: ca.authorities(),
    };
    let unnamed = Tls::new(&one.identity(), None, vec![Some(peer("not a name"))]);
    assert!(matches!(unnamed.unwrap_err(), TlsError::Name { .. }));
    let secret: String = one.key.lines().nth(1).unwrap().chars().take(20).collect();
    let tls = Tls::new(&one.identity(), None, vec![Some(peer(THEIRS))]).unwrap();
    assert!(!format!("{:?} {tls:?}", one.identity()).contains(&secret));
}

#[test]
fn the_first_certificate_of_a_chain_to_expire_counts() {
    let ca = Ca::new();
    let issued = ca.issue_until(2030, vec![dns(OURS)]);
    assert_eq!(issued.identity().expires_s(), 1_893_456_000);
    let short = ca.issue_until(2027, Vec::new());
    let chain = format!("{}{}", issued.certificate, short.certificate);
    let identity = Identity::from_pem(chain.as_bytes(), issued.key.as_bytes()).unwrap();
    assert_eq!(identity.expires_s(), 1_798_761_600);
}
