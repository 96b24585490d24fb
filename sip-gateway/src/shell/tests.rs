//! Real sockets on loopback. Every wait is for a condition; [`DEADLINE`] only bounds a failing test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod tls;

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

const LIMITS: Limits = Limits {
    max_calls: 1,
    max_message_bytes: 65_535,
    max_headers: 128,
    max_streams: 2,
    requests_per_s: None,
};

const QUICK: Patience = Patience {
    connect: Duration::from_millis(200),
    handshake: Duration::from_secs(5),
    write: Duration::from_secs(10),
    idle: Duration::from_secs(600),
};

struct Shell {
    sockets: Sockets,
    at: Vec<SocketAddr>,
    inputs: mpsc::Receiver<Input>,
}

impl Shell {
    fn new(listeners: &[(Transport, &str)], patience: Patience) -> Self {
        let listeners: Vec<_> = listeners
            .iter()
            .map(|&(transport, address)| Listener { transport, address: address.parse().unwrap() })
            .collect();
        let (sockets, actual, inputs) =
            Sockets::bind_with(&listeners, &LIMITS, &Handle::current(), patience).unwrap();
        Self { sockets, at: actual.iter().map(|listener| listener.address).collect(), inputs }
    }

    async fn next(&mut self) -> Input {
        timeout(DEADLINE, self.inputs.recv()).await.expect("no input came").unwrap()
    }

    async fn opened(&mut self) -> StreamId {
        match self.next().await {
            Input::StreamOpened { stream, .. } => stream,
            other => panic!("{other:?}"),
        }
    }

    /// All bytes of a stream until it closes.
    async fn until_closed(&mut self, wanted: StreamId) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.next().await {
                Input::StreamBytes { stream, bytes } if stream == wanted => all.extend_from_slice(&bytes),
                Input::StreamClosed { stream } if stream == wanted => return all,
                _ => {}
            }
        }
    }
}

const PEER: PeerId = PeerId(0);

const TCP: [(Transport, &str); 1] = [(Transport::Tcp, "127.0.0.1:0")];

#[tokio::test]
async fn datagrams_go_both_ways_over_both_families() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let mut shell = Shell::new(&[(Transport::Udp, address)], QUICK);
        let peer = UdpSocket::bind(address).unwrap();
        peer.set_read_timeout(Some(DEADLINE)).unwrap();
        let from = peer.local_addr().unwrap();
        // Before anything was received: the first datagram out must not be lost.
        shell.sockets.send_datagram(ListenerId(0), from, Bytes::from_static(b"ping"));
        let mut buffer = [0; 16];
        let (length, source) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], source), (&b"ping"[..], shell.at[0]));

        peer.send_to(b"pong", shell.at[0]).unwrap();
        let expected = Input::Datagram { listener: ListenerId(0), from, bytes: Bytes::from_static(b"pong") };
        assert_eq!(shell.next().await, expected);
        let counters = shell.sockets.counters();
        assert_eq!((counters.datagrams_in, counters.datagrams_out, counters.datagrams_lost), (1, 1, 0));
    }
}

#[tokio::test]
async fn all_that_waits_is_in_the_queue() {
    const WAITING: usize = 100;
    let mut shell = Shell::new(&[(Transport::Udp, "127.0.0.1:0")], QUICK);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..WAITING {
        peer.send_to(b"x", shell.at[0]).unwrap();
    }
    shell.next().await;
    assert_eq!(shell.inputs.len(), WAITING - 1);
}

#[tokio::test]
async fn a_datagram_that_cannot_be_sent_is_counted() {
    let mut shell = Shell::new(&[(Transport::Udp, "127.0.0.1:0")], QUICK);
    let to: SocketAddr = "[::1]:9".parse().unwrap();
    shell.sockets.send_datagram(ListenerId(0), to, Bytes::from_static(b"x"));
    shell.sockets.send_datagram(ListenerId(7), to, Bytes::from_static(b"x"));
    assert_eq!(shell.sockets.counters().datagrams_lost, 2);
}

#[tokio::test]
async fn an_accepted_stream_is_answered_on_itself_and_closed_after_the_answer() {
    let mut shell = Shell::new(&TCP, QUICK);
    let mut peer = TcpStream::connect(shell.at[0]).await.unwrap();
    let from = peer.local_addr().unwrap();
    let opened = shell.next().await;
    let stream = StreamId(2);
    assert_eq!(opened, Input::StreamOpened { stream, listener: ListenerId(0), from });
    peer.write_all(b"request").await.unwrap();
    assert_eq!(shell.next().await, Input::StreamBytes { stream, bytes: Bytes::from_static(b"request") });
    shell.sockets.send_stream(stream, Bytes::from_static(b"answer"));
    shell.sockets.close_stream(stream);
    let mut all = Vec::new();
    timeout(DEADLINE, peer.read_to_end(&mut all)).await.unwrap().unwrap();
    assert_eq!(all, b"answer");
    assert_eq!(shell.next().await, Input::StreamClosed { stream });
    shell.sockets.send_stream(stream, Bytes::from_static(b"late"));
    assert_eq!(shell.sockets.counters().stream_messages_lost, 1);
}

#[tokio::test]
async fn a_connected_stream_carries_what_was_sent_before_it_was_open() {
    for (listener, address) in [(Transport::Tcp, "127.0.0.1:0"), (Transport::Tcp, "[::1]:0")] {
        let mut shell = Shell::new(&[(listener, address)], QUICK);
        let peer = TcpListener::bind(address).await.unwrap();
        let stream = StreamId(1);
        shell.sockets.connect(stream, ListenerId(0), PEER, peer.local_addr().unwrap());
        shell.sockets.send_stream(stream, Bytes::from_static(b"one"));
        shell.sockets.send_stream(stream, Bytes::from_static(b"two"));
        let (mut far, from) = timeout(DEADLINE, peer.accept()).await.unwrap().unwrap();
        assert_eq!(shell.next().await, Input::StreamReady { stream, certified: Vec::new() });
        assert_eq!(from.ip(), shell.at[0].ip());
        let mut buffer = [0; 6];
        far.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"onetwo");
        far.write_all(b"three").await.unwrap();
        drop(far);
        assert_eq!(shell.until_closed(stream).await, b"three");
    }
}

#[tokio::test]
async fn a_connect_that_is_refused_or_hangs_ends_in_closed() {
    let mut shell = Shell::new(&TCP, QUICK);
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    shell.sockets.connect(StreamId(1), ListenerId(0), PEER, gone);
    assert_eq!(shell.next().await, Input::StreamClosed { stream: StreamId(1) });

    // A listener whose backlog is full leaves further connects hanging.
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    deaf.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    deaf.listen(0).unwrap();
    let address = deaf.local_addr().unwrap().as_socket().unwrap();
    let mut full = JoinSet::new();
    for _ in 0..4 {
        full.spawn(TcpStream::connect(address));
    }
    let first = timeout(DEADLINE, full.join_next()).await.unwrap();
    assert!(first.is_some());
    shell.sockets.connect(StreamId(3), ListenerId(0), PEER, address);
    assert_eq!(shell.next().await, Input::StreamClosed { stream: StreamId(3) });
    assert_eq!(shell.sockets.counters().connects_failed, 2);
}

#[tokio::test]
async fn streams_beyond_the_limit_are_closed_and_room_is_given_back() {
    let mut shell = Shell::new(&TCP, QUICK);
    let first = TcpStream::connect(shell.at[0]).await.unwrap();
    let first_id = shell.opened().await;
    let _second = TcpStream::connect(shell.at[0]).await.unwrap();
    shell.opened().await;
    let mut third = TcpStream::connect(shell.at[0]).await.unwrap();
    let mut buffer = [0; 1];
    let end = timeout(DEADLINE, third.read(&mut buffer)).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)));
    assert_eq!(shell.sockets.counters().streams_refused, 1);
    drop(first);
    shell.until_closed(first_id).await;
    let _fourth = TcpStream::connect(shell.at[0]).await.unwrap();
    shell.opened().await;
}

#[tokio::test]
async fn a_stream_whose_peer_does_not_read_is_closed_when_its_queue_is_full() {
    let mut shell = Shell::new(&TCP, QUICK);
    let _peer = TcpStream::connect(shell.at[0]).await.unwrap();
    let stream = shell.opened().await;
    let message = Bytes::from(vec![b'x'; 60_000]);
    while shell.sockets.counters().stream_messages_lost == 0 {
        shell.sockets.send_stream(stream, message.clone());
        tokio::task::yield_now().await;
    }
    shell.until_closed(stream).await;
    assert_eq!(shell.sockets.counters().streams_overflowed, 1);
}

#[tokio::test]
async fn a_silent_stream_is_closed() {
    let patience = Patience { idle: Duration::from_millis(50), ..QUICK };
    let mut shell = Shell::new(&TCP, patience);
    let mut peer = TcpStream::connect(shell.at[0]).await.unwrap();
    let stream = shell.opened().await;
    shell.until_closed(stream).await;
    let mut buffer = [0; 1];
    assert_eq!(timeout(DEADLINE, peer.read(&mut buffer)).await.unwrap().unwrap(), 0);
    assert_eq!(shell.sockets.counters().streams_idle, 1);
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error =
        Sockets::bind(&[Listener { transport: Transport::Udp, address }], &LIMITS, &Handle::current())
            .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_reader_that_panics_is_started_again() {
    let counters = Arc::new(Counters::default());
    let runs = Arc::new(AtomicUsize::new(0));
    let started = Arc::clone(&runs);
    let supervised = supervise::supervise(ListenerId(0), Arc::clone(&counters), move || {
        let started = Arc::clone(&started);
        async move {
            assert!(started.fetch_add(1, SeqCst) >= 2, "a reader panics twice");
        }
    });
    timeout(DEADLINE, supervised).await.unwrap();
    assert_eq!((runs.load(SeqCst), counters.snapshot().listener_restarts), (3, 2));
}
