//! The RTP side of a test telephone (RFC 3550, RFC 4733): one packet every 20 ms of real time, and
//! everything that arrives is kept.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::sound;

/// Samples of a packet: 20 ms.
const FRAME: usize = sound::RATE / 50;
const PACKET_TIME: Duration = Duration::from_millis(20);
/// µ-law for a sample of 0.
const SILENCE: u8 = 0xFF;
/// A key is held for this many packets, and its end is sent three times (RFC 4733 §2.5.1.4).
const KEY_PACKETS: u16 = 8;
const KEY_ENDS: u16 = 3;
/// Packets of voice between two keys.
const KEY_PAUSE: u16 = 5;

/// A packet as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// When.
    pub(crate) at: Instant,
    /// Its payload type.
    pub(crate) payload_type: u8,
    /// Its timestamp.
    pub(crate) timestamp: u32,
    /// Its source.
    pub(crate) ssrc: u32,
    /// What it carries.
    pub(crate) payload: Vec<u8>,
}

/// The media of one call.
pub(crate) struct Media {
    socket: UdpSocket,
    state: Mutex<State>,
    ended: AtomicBool,
}

struct State {
    remote: Option<SocketAddr>,
    events: u8,
    voice: Vec<u8>,
    spoken: usize,
    keys: VecDeque<char>,
    pressing: Option<Pressing>,
    mute: bool,
    first_sent: Option<Instant>,
    received: Vec<Received>,
    strangers: usize,
}

struct Pressing {
    event: u8,
    timestamp: u32,
    packets: u16,
}

/// Keeps the two threads of a [`Media`]; they end with it.
pub(crate) struct Threads(Vec<JoinHandle<()>>, Arc<Media>);

impl Drop for Threads {
    fn drop(&mut self) {
        self.1.ended.store(true, Ordering::Relaxed);
        for thread in self.0.drain(..) {
            // A panic in it has already been printed, and the test will miss its packets.
            let _ = thread.join();
        }
    }
}

impl Media {
    /// Binds an even port of `address`; nothing is sent before [`Media::connect`].
    pub(crate) fn open(address: std::net::IpAddr) -> (Arc<Self>, Threads) {
        let socket = (0..500)
            .find_map(|port| UdpSocket::bind((address, 40_000 + 2 * port)).ok())
            .expect("a free even port");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a read timeout");
        let state = State {
            remote: None,
            events: 101,
            voice: vec![SILENCE; FRAME],
            spoken: 0,
            keys: VecDeque::new(),
            pressing: None,
            mute: false,
            first_sent: None,
            received: Vec::new(),
            strangers: 0,
        };
        let media = Arc::new(Self { socket, state: Mutex::new(state), ended: AtomicBool::new(false) });
        let (sender, receiver) = (Arc::clone(&media), Arc::clone(&media));
        let threads = vec![
            std::thread::spawn(move || sender.send_all()),
            std::thread::spawn(move || receiver.receive_all()),
        ];
        (Arc::clone(&media), Threads(threads, media))
    }

    /// Our own RTP address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket")
    }

    /// Where to send, and the payload type of telephone events there.
    pub(crate) fn connect(&self, remote: SocketAddr, events: Option<u8>) {
        let mut state = self.state();
        state.remote = Some(remote);
        state.events = events.unwrap_or(state.events);
    }

    /// Sends a datagram as it is, between the packets of the voice.
    pub(crate) fn send_raw(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.remote()).expect("a datagram leaves");
    }

    /// Where we send.
    pub(crate) fn remote(&self) -> SocketAddr {
        self.state().remote.expect("an answered offer")
    }

    /// From the next packet on, speaks `samples` over and over.
    pub(crate) fn say(&self, samples: &[i16]) {
        self.say_raw(samples.iter().map(|sample| sound::ulaw_encode(*sample)).collect());
    }

    /// From the next packet on, sends these µ-law bytes over and over.
    pub(crate) fn say_raw(&self, voice: Vec<u8>) {
        assert!(!voice.is_empty());
        let mut state = self.state();
        state.voice = voice;
        state.spoken = 0;
    }

    /// Stops sending, or goes on.
    pub(crate) fn mute(&self, mute: bool) {
        self.state().mute = mute;
    }

    /// Presses keys, one after the other, and returns when the last was let go.
    pub(crate) fn press(&self, keys: &str) {
        self.state().keys.extend(keys.chars());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.state().keys.is_empty() || self.state().pressing.is_some() {
            assert!(Instant::now() < deadline, "keys were not sent: is there a call?");
            std::thread::sleep(PACKET_TIME);
        }
    }

    /// When our first packet left; waits for it if need be.
    pub(crate) fn first_sent(&self) -> Instant {
        crate::gateway::eventually("a first packet", Duration::from_secs(1), || self.state().first_sent)
    }

    /// Everything that has arrived from where we send to.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.state().received.clone()
    }

    /// How many packets came from anywhere else.
    pub(crate) fn strange_packets(&self) -> usize {
        self.state().strangers
    }

    /// The audio heard since `since`, on the sender's clock, silence where nothing came. All of it must be
    /// of one source: prompts are inserted into the stream, they do not break it.
    pub(crate) fn heard(&self, since: Option<Instant>) -> Vec<i16> {
        let state = self.state();
        let mut packets = state
            .received
            .iter()
            .filter(|packet| packet.payload_type == 0 && since.is_none_or(|since| packet.at >= since));
        let Some(first) = packets.next() else { return Vec::new() };
        let mut samples: Vec<i16> = Vec::new();
        for packet in std::iter::once(first).chain(packets) {
            assert_eq!(packet.ssrc, first.ssrc, "a second source in one stream");
            let at = packet.timestamp.wrapping_sub(first.timestamp) as usize;
            assert!(at < 3_600 * sound::RATE, "a timestamp jumped by {at}");
            samples.resize(samples.len().max(at + packet.payload.len()), 0);
            for (slot, code) in samples[at..].iter_mut().zip(&packet.payload) {
                *slot = sound::ulaw_decode(*code);
            }
        }
        samples
    }

    /// Waits until at least a second of sound and then a second of silence was heard since `since`: a prompt
    /// has ended. What the far end says meanwhile (`background`, packet by packet) is no prompt. Returns the
    /// audio heard.
    pub(crate) fn prompt(&self, since: Instant, limit: Duration, background: &[u8]) -> Vec<i16> {
        const LOUD: f64 = 150.0;
        const ENOUGH: usize = 50;
        let of_a_prompt = |packet: &Received| {
            let samples: Vec<i16> = packet.payload.iter().map(|code| sound::ulaw_decode(*code)).collect();
            packet.payload != background && sound::loudness(&samples) > LOUD
        };
        let deadline = Instant::now() + limit;
        loop {
            let frames: Vec<bool> = self
                .received()
                .iter()
                .filter(|packet| packet.payload_type == 0 && packet.at >= since)
                .map(of_a_prompt)
                .collect();
            let loud = frames.iter().filter(|loud| **loud).count();
            let quiet = frames.iter().rev().take_while(|loud| !**loud).count();
            if loud >= ENOUGH && quiet >= ENOUGH {
                return self.heard(Some(since));
            }
            assert!(
                Instant::now() < deadline,
                "no whole prompt: {loud} loud frames, then {quiet} quiet ones"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Keys of telephone events that have arrived, each press once.
    pub(crate) fn keys_heard(&self) -> Vec<u8> {
        let state = self.state();
        let mut presses: Vec<(u32, u8)> = Vec::new();
        for packet in state.received.iter().filter(|packet| packet.payload_type == state.events) {
            let press = (packet.timestamp, packet.payload.first().copied().unwrap_or(u8::MAX));
            if !presses.contains(&press) {
                presses.push(press);
            }
        }
        presses.into_iter().map(|(_, event)| event).collect()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn send_all(&self) {
        let mut sequence: u16 = 1_000;
        let mut timestamp: u32 = 160_000;
        let ssrc = u32::from(self.address().port()) << 16 | 0x5EED;
        let mut pause = 0_u16;
        let mut due = Instant::now();
        while !self.ended.load(Ordering::Relaxed) {
            due += PACKET_TIME;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let (remote, packet) = {
                let mut state = self.state();
                let Some(remote) = state.remote.filter(|_| !state.mute) else { continue };
                state.first_sent.get_or_insert_with(Instant::now);
                (remote, state.next_packet(sequence, timestamp, ssrc, &mut pause))
            };
            sequence = sequence.wrapping_add(1);
            timestamp = timestamp.wrapping_add(FRAME as u32);
            // The far end may be gone (killed): then nobody hears us, as in life.
            let _ = self.socket.send_to(&packet, remote);
        }
    }

    fn receive_all(&self) {
        let mut buffer = [0_u8; 2_048];
        while !self.ended.load(Ordering::Relaxed) {
            let Ok((length, from)) = self.socket.recv_from(&mut buffer) else { continue };
            let at = Instant::now();
            let packet = &buffer[..length];
            let mut state = self.state();
            if state.remote.is_some_and(|remote| remote != from) {
                state.strangers += 1;
                continue;
            }
            if length >= 12 && packet[0] >> 6 == 2 {
                state.received.push(Received {
                    at,
                    payload_type: packet[1] & 0x7F,
                    timestamp: u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]),
                    ssrc: u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]),
                    payload: packet[12..].to_vec(),
                });
            }
        }
    }
}

impl State {
    /// The next packet: a telephone event while a key is pressed, else voice.
    fn next_packet(&mut self, sequence: u16, timestamp: u32, ssrc: u32, pause: &mut u16) -> Vec<u8> {
        let voice: Vec<u8> = (0..FRAME).map(|at| self.voice[(self.spoken + at) % self.voice.len()]).collect();
        self.spoken = (self.spoken + FRAME) % self.voice.len();
        *pause = pause.saturating_sub(1);
        if self.pressing.is_none()
            && *pause == 0
            && let Some(key) = self.keys.pop_front()
        {
            self.pressing = Some(Pressing { event: event_of(key), timestamp, packets: 0 });
        }
        let Some(pressing) = &mut self.pressing else {
            return rtp(0, false, sequence, timestamp, ssrc, &voice);
        };
        pressing.packets += 1;
        let ending = pressing.packets > KEY_PACKETS;
        let duration = pressing.packets.min(KEY_PACKETS) * FRAME as u16;
        let [high, low] = duration.to_be_bytes();
        // End bit, reserved bit, volume (−10 dBm0).
        let flags = if ending { 0x80 | 10 } else { 10 };
        let payload = [pressing.event, flags, high, low];
        let first = pressing.packets == 1;
        let packet = rtp(self.events, first, sequence, pressing.timestamp, ssrc, &payload);
        if pressing.packets == KEY_PACKETS + KEY_ENDS {
            self.pressing = None;
            *pause = KEY_PAUSE;
        }
        packet
    }
}

/// A packet of our own making (RFC 3550 §5.1).
pub(crate) fn rtp(
    payload_type: u8,
    marker: bool,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0x80, payload_type | if marker { 0x80 } else { 0 }];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&timestamp.to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// The event code of a key (RFC 4733 §3.2).
fn event_of(key: char) -> u8 {
    match key {
        '*' => 10,
        '#' => 11,
        digit => digit.to_digit(10).and_then(|digit| u8::try_from(digit).ok()).expect("a key"),
    }
}
