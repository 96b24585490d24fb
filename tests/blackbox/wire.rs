//! What carries a telephone's messages: datagrams, or TLS streams with certificates of a CA of the test's own.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// How long a telephone listens before it looks whether it is to close.
const TURN: Duration = Duration::from_millis(50);

/// How long a telephone tries to connect, and how long it waits in between.
const CONNECTING: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(100);

/// A telephone's way to the gateway.
pub(crate) enum Wire {
    Datagrams(UdpSocket),
    Streams(Streams),
}

/// TLS streams, accepted at an address and opened from it. What is sent goes on the one that was opened last.
pub(crate) struct Streams {
    outgoing: Option<UnboundedSender<Vec<u8>>>,
    incoming: Mutex<mpsc::Receiver<Vec<u8>>>,
    accepted: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    pub(crate) fn datagrams(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).expect("a free address");
        socket.set_read_timeout(Some(TURN)).expect("a read timeout");
        Self::Datagrams(socket)
    }

    pub(crate) fn streams(address: SocketAddr, gateway: SocketAddr, ca: &Authority, own: &Issued) -> Self {
        let (outgoing, to_send) = unbounded_channel();
        let (received, incoming) = mpsc::channel();
        let accepted = Arc::new(AtomicUsize::new(0));
        let far = Far {
            address,
            gateway,
            connector: own.connector(ca),
            acceptor: own.acceptor(ca),
            received,
            accepted: Arc::clone(&accepted),
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(far.run(to_send));
        });
        let (outgoing, thread) = (Some(outgoing), Some(thread));
        Self::Streams(Streams { outgoing, incoming: Mutex::new(incoming), accepted, thread })
    }

    pub(crate) fn send(&self, bytes: &[u8], gateway: SocketAddr) {
        match self {
            Self::Datagrams(socket) => {
                socket.send_to(bytes, gateway).expect("a datagram leaves");
            }
            Self::Streams(streams) => {
                let outgoing = streams.outgoing.as_ref().expect("open until it is dropped");
                outgoing.send(bytes.to_vec()).expect("the streams' thread lives");
            }
        }
    }

    /// The next message from the gateway, if one comes soon.
    pub(crate) fn receive(&self, gateway: SocketAddr) -> Option<Vec<u8>> {
        match self {
            Self::Datagrams(socket) => {
                let mut buffer = vec![0_u8; 65_536];
                let (length, from) = socket.recv_from(&mut buffer).ok()?;
                assert_eq!(from, gateway, "only the gateway talks to us");
                buffer.truncate(length);
                Some(buffer)
            }
            Self::Streams(streams) => {
                let incoming = streams.incoming.lock().unwrap_or_else(PoisonError::into_inner);
                incoming.recv_timeout(TURN).ok()
            }
        }
    }

    /// As Via names it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Datagrams(_) => "UDP",
            Self::Streams(_) => "TLS",
        }
    }

    /// What a URI must say of it.
    pub(crate) const fn parameter(&self) -> &'static str {
        match self {
            Self::Datagrams(_) => "",
            Self::Streams(_) => ";transport=tls",
        }
    }

    /// Streams that the gateway has opened.
    pub(crate) fn accepted(&self) -> usize {
        match self {
            Self::Datagrams(_) => 0,
            Self::Streams(streams) => streams.accepted.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.outgoing = None;
        if let Some(thread) = self.thread.take() {
            // A panic in it has already been printed.
            let _ = thread.join();
        }
    }
}

struct Far {
    address: SocketAddr,
    gateway: SocketAddr,
    connector: TlsConnector,
    acceptor: TlsAcceptor,
    received: mpsc::Sender<Vec<u8>>,
    accepted: Arc<AtomicUsize>,
}

impl Far {
    async fn run(self, mut to_send: UnboundedReceiver<Vec<u8>>) {
        let listener = TcpListener::bind(self.address).await.expect("a free address");
        let mut last: Option<UnboundedSender<Vec<u8>>> = None;
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (tcp, _) = accepted.expect("a connection");
                    if let Ok(tls) = self.acceptor.accept(tcp).await {
                        self.accepted.fetch_add(1, Ordering::Relaxed);
                        last = Some(self.carry(tls));
                    }
                }
                message = to_send.recv() => {
                    let Some(message) = message else { return };
                    let open = last.take().filter(|stream| !stream.is_closed());
                    let stream = match open {
                        Some(open) => open,
                        None => self.carry(self.connect().await),
                    };
                    // Lost with its stream, as on any network.
                    let _ = stream.send(message);
                    last = Some(stream);
                }
            }
        }
    }

    async fn connect(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        // Refused in a flood, a client comes again.
        let give_up_at = Instant::now() + CONNECTING;
        loop {
            match connect(&self.connector, self.address, self.gateway).await {
                Ok(stream) => return stream,
                Err(_) if Instant::now() < give_up_at => tokio::time::sleep(AGAIN).await,
                Err(error) => panic!("no stream to the gateway: {error}"),
            }
        }
    }

    /// Carries a stream; what is sent on it goes into what is returned.
    fn carry(&self, stream: impl AsyncRead + AsyncWrite + Send + 'static) -> UnboundedSender<Vec<u8>> {
        let (sender, mut waiting) = unbounded_channel::<Vec<u8>>();
        let received = self.received.clone();
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let read = async {
                let (mut buffer, mut segment) = (Vec::new(), vec![0; 16_384]);
                while let Ok(length @ 1..) = reader.read(&mut segment).await {
                    buffer.extend_from_slice(&segment[..length]);
                    while let Some(message) = cut(&mut buffer) {
                        // The telephone may be gone.
                        let _ = received.send(message);
                    }
                }
            };
            let write = async {
                while let Some(message) = waiting.recv().await {
                    if writer.write_all(&message).await.is_err() || writer.flush().await.is_err() {
                        return;
                    }
                }
                std::future::pending().await
            };
            tokio::select! { () = read => {} () = write => {} }
        });
        sender
    }
}

/// Opens a stream from an address of ours (any port) to the gateway.
pub(crate) async fn connect(
    connector: &TlsConnector,
    from: SocketAddr,
    gateway: SocketAddr,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.ip(), 0))?;
    let tcp = socket.connect(gateway).await?;
    connector.connect(ServerName::IpAddress(gateway.ip().into()), tcp).await
}

/// The first whole message of a stream (RFC 3261 §18.3), without the line breaks before it.
fn cut(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let breaks = buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    buffer.drain(..breaks);
    let head = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"))?;
    let length: usize = length.trim().parse().expect("a length");
    (buffer.len() >= head + length).then(|| buffer.drain(..head + length).collect())
}

/// A certificate authority.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for these names and addresses, until this year.
    pub(crate) fn issue(&self, names: &[&str], until: i32) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Issued { certificate, key: key.serialize_pem() }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("PEM");
        roots.add(certificate).expect("a root");
        Arc::new(roots)
    }
}

impl Issued {
    fn pair(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key");
        (chain.map(|one| one.expect("PEM")).collect(), key)
    }

    /// A client that believes this CA and shows this certificate.
    pub(crate) fn connector(&self, ca: &Authority) -> TlsConnector {
        let (chain, key) = self.pair();
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(ca.roots())
            .with_client_auth_cert(chain, key)
            .expect("a certificate");
        TlsConnector::from(Arc::new(config))
    }

    /// A server with this certificate that asks for one of this CA.
    fn acceptor(&self, ca: &Authority) -> TlsAcceptor {
        let (chain, key) = self.pair();
        let asks = WebPkiClientVerifier::builder_with_provider(ca.roots(), provider()).build();
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(asks.expect("a verifier"))
            .with_single_cert(chain, key)
            .expect("a certificate");
        TlsAcceptor::from(Arc::new(config))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
