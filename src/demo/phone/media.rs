//! A telephone's media: RTP (RFC 3550) with µ-law at a packet each 20 ms from the moment the far end's
//! address is known until the call ends, silence when nobody speaks, and telephone events (RFC 4733) for
//! digits. Leaves out RTCP (its port is bound, so that nobody else gets it, and never read), comfort noise
//! and a jitter buffer: what was heard is kept as it came.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};

use super::PhoneError;
use super::heard::{Heard, HeardPacket};
use super::sdp::PCMU;
use crate::demo::mu_law;

/// Samples of a packet: 20 ms at 8 kHz.
const SAMPLES_PER_PACKET: u32 = 160;

/// The pace of packets.
const PACKET_TIME: Duration = Duration::from_millis(20);

/// How long a key is held: RFC 4733 §2.5 wants a recognisable digit, a person holds it about this long.
const KEY_PACKETS: u16 = 5;

/// RFC 4733 §2.5.1.4: the last packet of an event is sent three times in all.
const END_PACKETS: u16 = 3;

/// Silence between two digits, in packets.
const KEY_GAP_PACKETS: u16 = 3;

/// Volume of an event in −dBm0 (RFC 4733 §2.3).
const KEY_VOLUME: u8 = 10;

/// Mean magnitude above which a packet counts as somebody speaking (about −40 dBFS).
const LOUD: u32 = 300;

/// How often an even port with a free odd one after it is looked for.
const PORT_TRIES: usize = 50;

/// Orders that wait; the one who gives more waits with them.
const ORDERS: usize = 8;

/// Where media goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) rtp: SocketAddr,
    pub(super) sends: bool,
    pub(super) telephone_event: Option<u8>,
}

/// What was sent so far.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// When the first packet left.
    pub first_at: Instant,
    /// The same on the wall clock.
    pub first_wall: SystemTime,
    /// When the last packet left.
    pub last_at: Instant,
    /// How many.
    pub packets: u64,
}

/// Something said to its end.
#[derive(Clone, Copy, Debug)]
pub struct Spoken {
    /// When its first packet left.
    pub began: Instant,
}

/// What is heard on the line, for those who wait for a prompt to end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Activity {
    /// How much speech was heard in all.
    pub(super) loud_ms: u32,
    /// When speech was last heard.
    pub(super) last_loud: Option<Instant>,
}

#[derive(Debug)]
enum Order {
    Speak { samples: Vec<u8>, done: oneshot::Sender<Spoken> },
    Press { event: u8, done: oneshot::Sender<()> },
}

/// One RTP endpoint. Media stops when it is dropped.
#[derive(Debug)]
pub(super) struct Media {
    local: SocketAddr,
    orders: mpsc::Sender<Order>,
    remote: watch::Sender<Option<Remote>>,
    activity: watch::Receiver<Activity>,
    ledger: Arc<Mutex<Ledger>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Ledger {
    heard: Heard,
    sent: Option<Sent>,
}

impl Media {
    /// Binds an even port and the odd one after it.
    pub(super) async fn bind(address: IpAddr, seed: [u8; 16]) -> Result<Self, PhoneError> {
        let (rtp, rtcp) = bind_pair(address).await?;
        let local = rtp.local_addr().map_err(|source| PhoneError::Bind { address, source })?;
        let (orders, inbox) = mpsc::channel(ORDERS);
        let (remote, remote_seen) = watch::channel(None);
        let (activity_seen, activity) = watch::channel(Activity::default());
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let stream = Stream {
            rtp,
            _rtcp: rtcp,
            orders: inbox,
            remote: remote_seen,
            activity: activity_seen,
            ledger: Arc::clone(&ledger),
            out: Outbound::new(seed),
        };
        let task = tokio::spawn(stream.run());
        Ok(Self { local, orders, remote, activity, ledger, task })
    }

    pub(super) const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Where to send from now on, or `None` to stop.
    pub(super) fn set_remote(&self, remote: Option<Remote>) {
        self.remote.send_if_modified(|current| {
            let changed = *current != remote;
            *current = remote;
            changed
        });
    }

    pub(super) async fn speak(&self, samples: &[u8]) -> Result<Spoken, PhoneError> {
        let (done, spoken) = oneshot::channel();
        let order = Order::Speak { samples: samples.to_vec(), done };
        self.orders.send(order).await.map_err(|_| PhoneError::Over)?;
        spoken.await.map_err(|_| PhoneError::Over)
    }

    pub(super) async fn press(&self, digit: char) -> Result<(), PhoneError> {
        let event = event_of(digit).ok_or(PhoneError::NotAKey { digit })?;
        let (done, pressed) = oneshot::channel();
        self.orders.send(Order::Press { event, done }).await.map_err(|_| PhoneError::Over)?;
        pressed.await.map_err(|_| PhoneError::Over)
    }

    pub(super) fn heard(&self) -> Heard {
        locked(&self.ledger).heard.clone()
    }

    pub(super) fn sent(&self) -> Option<Sent> {
        locked(&self.ledger).sent
    }

    pub(super) fn activity(&self) -> watch::Receiver<Activity> {
        self.activity.clone()
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The RFC 4733 §3.2 event of a key.
pub(super) fn event_of(digit: char) -> Option<u8> {
    let keys = "0123456789*#ABCD";
    keys.chars().position(|key| key == digit).and_then(|index| u8::try_from(index).ok())
}

fn locked(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn bind_pair(address: IpAddr) -> Result<(UdpSocket, UdpSocket), PhoneError> {
    let failed = |source| PhoneError::Bind { address, source };
    for _ in 0..PORT_TRIES {
        let rtp = UdpSocket::bind((address, 0)).await.map_err(failed)?;
        let port = rtp.local_addr().map_err(failed)?.port();
        if port % 2 == 1 {
            continue;
        }
        if let Ok(rtcp) = UdpSocket::bind((address, port + 1)).await {
            return Ok((rtp, rtcp));
        }
    }
    Err(PhoneError::NoPorts { address })
}

/// The task's side of [`Media`].
struct Stream {
    rtp: UdpSocket,
    _rtcp: UdpSocket,
    orders: mpsc::Receiver<Order>,
    remote: watch::Receiver<Option<Remote>>,
    activity: watch::Sender<Activity>,
    ledger: Arc<Mutex<Ledger>>,
    out: Outbound,
}

impl Stream {
    async fn run(mut self) {
        let mut pace = tokio::time::interval(PACKET_TIME);
        // A late tick is made up for: the media's clock must not fall behind the wall's.
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut datagram = [0; 2_048];
        let mut remote = None;
        loop {
            tokio::select! {
                biased;
                changed = self.remote.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    remote = self.take_remote(remote, &mut pace);
                }
                order = self.orders.recv() => match order {
                    Some(order) => self.out.take(order),
                    None => return,
                },
                _ = pace.tick(), if remote.is_some() => {
                    if let Some(remote) = remote {
                        self.send(remote).await;
                    }
                }
                received = self.rtp.recv_from(&mut datagram) => {
                    if let Ok((length, _)) = received {
                        self.receive(datagram.get(..length).unwrap_or_default());
                    }
                }
            }
        }
    }

    /// Media that begins (or begins again) starts its pace afresh, and its first packet leaves at once.
    fn take_remote(&mut self, before: Option<Remote>, pace: &mut Interval) -> Option<Remote> {
        let remote = self.remote.borrow_and_update().filter(|remote| remote.sends);
        if before.is_none() && remote.is_some() {
            pace.reset_immediately();
            self.out.resume(Instant::now());
        }
        remote
    }

    async fn send(&mut self, remote: Remote) {
        let now = Instant::now();
        let packet = self.out.next_packet(remote.telephone_event, now);
        // What the network refuses is lost, as RTP is; the next packet follows in 20 ms.
        let _ = self.rtp.send_to(&packet, remote.rtp).await;
        let mut ledger = locked(&self.ledger);
        let first = Sent { first_at: now, first_wall: SystemTime::now(), last_at: now, packets: 0 };
        let sent = ledger.sent.get_or_insert(first);
        sent.last_at = now;
        sent.packets += 1;
    }

    fn receive(&self, datagram: &[u8]) {
        let now = Instant::now();
        let Some(packet) = HeardPacket::parse(datagram, now) else { return };
        if packet.payload_type == PCMU && mu_law::mean_magnitude(&packet.payload) > LOUD {
            let length_ms = u32::try_from(packet.payload.len() / 8).unwrap_or(0);
            self.activity.send_modify(|activity| {
                activity.loud_ms = activity.loud_ms.saturating_add(length_ms);
                activity.last_loud = Some(now);
            });
        }
        locked(&self.ledger).heard.keep(packet);
    }
}

/// The sending half's RTP state.
struct Outbound {
    ssrc: [u8; 4],
    sequence: u16,
    timestamp: u32,
    marker: bool,
    last_at: Option<Instant>,
    waiting: VecDeque<Order>,
    saying: Option<Saying>,
}

/// What is being said.
enum Saying {
    Speech { samples: Vec<u8>, position: usize, began: Option<Instant>, done: oneshot::Sender<Spoken> },
    Key { event: u8, packet: u16, began: u32, done: oneshot::Sender<()> },
}

impl Outbound {
    fn new(seed: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, ..] = seed;
        Self {
            ssrc: [a, b, c, d],
            sequence: u16::from_be_bytes([e, f]),
            timestamp: u32::from_be_bytes([g, h, i, j]),
            marker: true,
            last_at: None,
            waiting: VecDeque::new(),
            saying: None,
        }
    }

    fn take(&mut self, order: Order) {
        self.waiting.push_back(order);
    }

    /// RFC 3550 §5.1: the timestamp goes on while nothing is sent.
    fn resume(&mut self, now: Instant) {
        self.marker = true;
        let Some(last) = self.last_at else { return };
        let missed = (now.duration_since(last).as_millis() / PACKET_TIME.as_millis()).saturating_sub(1);
        let samples = missed.wrapping_mul(u128::from(SAMPLES_PER_PACKET));
        self.timestamp = self.timestamp.wrapping_add((samples & u128::from(u32::MAX)) as u32);
    }

    fn next_packet(&mut self, telephone_event: Option<u8>, now: Instant) -> Vec<u8> {
        if self.saying.is_none() {
            self.saying = self.waiting.pop_front().map(|order| self.begin(order));
        }
        let packet = match self.saying.take() {
            None => self.audio(&[]),
            Some(Saying::Speech { samples, position, began, done }) => {
                let end = samples.len().min(position + SAMPLES_PER_PACKET as usize);
                let packet = self.audio(samples.get(position..end).unwrap_or_default());
                let began = began.unwrap_or(now);
                if end < samples.len() {
                    self.saying = Some(Saying::Speech { samples, position: end, began: Some(began), done });
                } else {
                    // Nobody waits for the end of this one.
                    let _ = done.send(Spoken { began });
                }
                packet
            }
            Some(Saying::Key { event, packet, began, done }) => {
                let bytes = self.key(telephone_event, event, packet, began);
                if packet + 1 < KEY_PACKETS + END_PACKETS + KEY_GAP_PACKETS {
                    self.saying = Some(Saying::Key { event, packet: packet + 1, began, done });
                } else {
                    let _ = done.send(());
                }
                bytes
            }
        };
        self.last_at = Some(now);
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(SAMPLES_PER_PACKET);
        packet
    }

    fn begin(&self, order: Order) -> Saying {
        match order {
            Order::Speak { samples, done } => Saying::Speech { samples, position: 0, began: None, done },
            Order::Press { event, done } => Saying::Key { event, packet: 0, began: self.timestamp, done },
        }
    }

    /// A packet of µ-law, filled up with silence.
    fn audio(&mut self, samples: &[u8]) -> Vec<u8> {
        let marker = std::mem::take(&mut self.marker);
        let mut packet = self.header(PCMU, marker, self.timestamp);
        packet.extend_from_slice(samples);
        packet.resize(12 + SAMPLES_PER_PACKET as usize, mu_law::SILENCE);
        packet
    }

    /// The n-th packet of a key: RFC 4733 §2.3, all with the timestamp of its beginning. Where the far end
    /// takes no events, and after the key, silence.
    fn key(&mut self, telephone_event: Option<u8>, event: u8, packet: u16, began: u32) -> Vec<u8> {
        let Some(payload_type) = telephone_event.filter(|_| packet < KEY_PACKETS + END_PACKETS) else {
            return self.audio(&[]);
        };
        let end = packet >= KEY_PACKETS;
        let duration = (packet + 1).min(KEY_PACKETS) * SAMPLES_PER_PACKET as u16;
        let mut bytes = self.header(payload_type, packet == 0, began);
        bytes.extend_from_slice(&[event, if end { 0x80 } else { 0 } | KEY_VOLUME]);
        bytes.extend_from_slice(&duration.to_be_bytes());
        bytes
    }

    fn header(&self, payload_type: u8, marker: bool, timestamp: u32) -> Vec<u8> {
        let mut header = Vec::with_capacity(12 + SAMPLES_PER_PACKET as usize);
        header.extend_from_slice(&[0x80, if marker { 0x80 } else { 0 } | payload_type]);
        header.extend_from_slice(&self.sequence.to_be_bytes());
        header.extend_from_slice(&timestamp.to_be_bytes());
        header.extend_from_slice(&self.ssrc);
        header
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn parsed(out: &mut Outbound) -> HeardPacket {
        let now = Instant::now();
        HeardPacket::parse(&out.next_packet(Some(101), now), now).unwrap()
    }

    #[test]
    fn sequence_and_timestamp_go_on_through_speech_silence_and_keys() {
        let mut out = Outbound::new([0xFF; 16]);
        let (done, mut spoken) = oneshot::channel();
        out.take(Order::Speak { samples: vec![1; 200], done });
        let (done, mut pressed) = oneshot::channel();
        out.take(Order::Press { event: 1, done });
        let packets: Vec<_> = (0..15).map(|_| parsed(&mut out)).collect();
        assert!(spoken.try_recv().is_ok() && pressed.try_recv().is_ok());
        let sequences: Vec<u16> = packets.iter().map(|p| p.sequence).collect();
        assert_eq!(sequences, (0..15).map(|n| 0xFFFF_u16.wrapping_add(n)).collect::<Vec<_>>());
        assert_eq!(packets[1].payload[39], 1);
        assert_eq!(packets[1].payload[40], mu_law::SILENCE);
        let keys: Vec<_> = packets.iter().filter(|p| p.payload_type == 101).collect();
        assert_eq!(keys.len(), 8);
        assert!(keys.iter().all(|p| p.timestamp == keys[0].timestamp && p.payload[0] == 1));
        assert_eq!(keys.iter().filter(|p| p.payload[1] & 0x80 != 0).count(), 3);
        assert_eq!(keys[7].payload[2..], 800_u16.to_be_bytes());
        assert_eq!(packets[14].timestamp, packets[0].timestamp.wrapping_add(14 * 160));
    }
}
