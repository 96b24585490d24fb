//! An authoritative DNS server (RFC 1035) on a real socket, written by hand: it shares no code with the
//! resolver under test.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const A: u16 = 1;
const SOA: u16 = 6;
const SRV: u16 = 33;
const NAPTR: u16 = 35;

const TTL_S: u32 = 60;

/// One record of a zone: owner, type, data.
#[derive(Clone)]
pub(crate) struct Record {
    name: String,
    kind: u16,
    data: Vec<u8>,
}

/// A server that answers until it is dropped.
pub(crate) struct Dns {
    closing: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Record {
    /// An address.
    pub(crate) fn a(name: &str, ip: Ipv4Addr) -> Self {
        Self { name: name.to_owned(), kind: A, data: ip.octets().to_vec() }
    }

    /// A service of weight 0.
    pub(crate) fn srv(name: &str, priority: u16, port: u16, target: &str) -> Self {
        let mut data = [priority, 0, port].map(u16::to_be_bytes).concat();
        data.extend(encode(target));
        Self { name: name.to_owned(), kind: SRV, data }
    }

    /// A pointer to SRV records.
    pub(crate) fn naptr(name: &str, order: u16, service: &str, replacement: &str) -> Self {
        let mut data = [order, 0].map(u16::to_be_bytes).concat();
        for text in ["s", service, ""] {
            data.push(u8::try_from(text.len()).expect("a short text"));
            data.extend(text.as_bytes());
        }
        data.extend(encode(replacement));
        Self { name: name.to_owned(), kind: NAPTR, data }
    }
}

impl Dns {
    /// Serves these records, and nothing else, at `address`.
    pub(crate) fn serve(address: SocketAddr, records: Vec<Record>) -> Self {
        let socket = UdpSocket::bind(address).expect("a free address");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a read timeout");
        let (closing, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = std::thread::spawn({
            let (closing, asked) = (Arc::clone(&closing), Arc::clone(&asked));
            move || {
                let mut buffer = [0; 1500];
                while !closing.load(Ordering::Relaxed) {
                    let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                    asked.fetch_add(1, Ordering::Relaxed);
                    let answer = answer(&records, &buffer[..length]);
                    socket.send_to(&answer, from).expect("an answer leaves");
                }
            }
        });
        Self { closing, asked, thread: Some(thread) }
    }

    /// How many questions came.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it has already been printed.
            let _ = thread.join();
        }
    }
}

/// A name as labels, without compression.
fn encode(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("a short label"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// The name at the start of a question, and what follows it.
fn decode(mut bytes: &[u8]) -> (String, &[u8]) {
    let mut labels = Vec::new();
    while let Some((length @ 1.., rest)) = bytes.split_first() {
        let (label, after) = rest.split_at(usize::from(*length));
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        bytes = after;
    }
    (labels.join("."), &bytes[1..])
}

fn answer(records: &[Record], query: &[u8]) -> Vec<u8> {
    let (name, rest) = decode(&query[12..]);
    let kind = u16::from_be_bytes([rest[0], rest[1]]);
    let question = &query[12..query.len() - rest.len() + 4];
    let known = records.iter().any(|record| record.name == name);
    let found: Vec<&Record> =
        records.iter().filter(|record| record.name == name && record.kind == kind).collect();
    let mut message = query[..2].to_vec();
    // QR, AA, RD, RA; NXDOMAIN for a name that is not there at all.
    message.extend([0x85, if known { 0x80 } else { 0x83 }]);
    let none = u16::from(found.is_empty());
    message.extend([1, u16::try_from(found.len()).expect("few"), none, 0].map(u16::to_be_bytes).concat());
    message.extend(question);
    for record in found {
        push(&mut message, record.kind, &record.data);
    }
    if none == 1 {
        let mut data = [encode("ns.example"), encode("admin.example")].concat();
        data.extend([1, 60, 60, 60, TTL_S].map(u32::to_be_bytes).concat());
        push(&mut message, SOA, &data);
    }
    message
}

/// A record whose owner is the name in question.
fn push(message: &mut Vec<u8>, kind: u16, data: &[u8]) {
    message.extend([0xC0, 12]);
    message.extend([kind, 1].map(u16::to_be_bytes).concat());
    message.extend(TTL_S.to_be_bytes());
    message.extend(u16::try_from(data.len()).expect("short data").to_be_bytes());
    message.extend(data);
}
