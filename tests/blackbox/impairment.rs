//! A bad network on both sides: five hundred calls with PRACK and re-INVITE get through it, and leave nothing behind.
//!
//! The kernel of a test machine cannot be asked to lose packets, so the telephones reach the gateway through relays of
//! the tests' own, which lose, delay, double and reorder what they carry, by a seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::gateway::{CITIZEN, NEVER, Site};
use crate::patient::{Callee, Caller};

const CALLS: usize = 500;
const CALLS_A_SECOND: u32 = 125;

/// Of a hundred datagrams.
const LOST: u64 = 5;
const OVERTAKING: u64 = 5;
const DOUBLED: u64 = 2;
const LEAST_DELAY_MS: u64 = 50;
const MOST_DELAY_MS: u64 = 150;

/// Carries datagrams between a telephone and the gateway, badly.
struct Relay {
    ended: Arc<AtomicBool>,
    fates: Arc<Fates>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Fates {
    carried: AtomicU64,
    lost: AtomicU64,
    overtaking: AtomicU64,
    doubled: AtomicU64,
}

/// Where it stands, and between whom.
#[derive(Clone, Copy)]
struct Between {
    towards_gateway: SocketAddr,
    gateway: SocketAddr,
    towards_phone: SocketAddr,
    phone: SocketAddr,
}

impl Relay {
    fn start(between: Between, seed: u64) -> Self {
        let (ended, fates) = (Arc::new(AtomicBool::new(false)), Arc::new(Fates::default()));
        let thread = std::thread::spawn({
            let (ended, fates) = (Arc::clone(&ended), Arc::clone(&fates));
            move || carry(between, seed, &ended, &fates)
        });
        Self { ended, fates, thread: Some(thread) }
    }

    /// What has become of the datagrams: carried, lost, overtaking others, doubled.
    fn fates(&self) -> [u64; 4] {
        let Fates { carried, lost, overtaking, doubled } = &*self.fates;
        [carried, lost, overtaking, doubled].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // A panic in it has already been printed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn carry(between: Between, seed: u64, ended: &AtomicBool, fates: &Fates) {
    let [outer, inner] = [between.towards_gateway, between.towards_phone].map(|address| {
        let socket = UdpSocket::bind(address).expect("the relay's address");
        socket.set_nonblocking(true).expect("a socket that does not wait");
        socket
    });
    let mut random = Random(seed);
    let mut under_way: BinaryHeap<Reverse<(Instant, bool, Vec<u8>)>> = BinaryHeap::new();
    let mut buffer = vec![0; 65_536];
    while !ended.load(Ordering::Relaxed) {
        for (socket, to_phone) in [(&outer, true), (&inner, false)] {
            while let Ok(length) = socket.recv(&mut buffer) {
                for due in random.fate(fates) {
                    under_way.push(Reverse((due, to_phone, buffer[..length].to_vec())));
                }
            }
        }
        let now = Instant::now();
        while under_way.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            let Some(Reverse((_, to_phone, datagram))) = under_way.pop() else { break };
            let (socket, to) = if to_phone { (&inner, between.phone) } else { (&outer, between.gateway) };
            // Whoever is not there misses it, as on any network.
            let _ = socket.send_to(&datagram, to);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn happens(&mut self, of_a_hundred: u64, counter: &AtomicU64) -> bool {
        let happens = self.below(100) < of_a_hundred;
        counter.fetch_add(u64::from(happens), Ordering::Relaxed);
        happens
    }

    /// When a datagram arrives: never, once or twice.
    fn fate(&mut self, fates: &Fates) -> Vec<Instant> {
        fates.carried.fetch_add(1, Ordering::Relaxed);
        if self.happens(LOST, &fates.lost) {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.happens(DOUBLED, &fates.doubled));
        let now = Instant::now();
        let arrival = |_| match self.happens(OVERTAKING, &fates.overtaking) {
            true => now,
            false => {
                let delay_ms = LEAST_DELAY_MS + self.below(MOST_DELAY_MS - LEAST_DELAY_MS + 1);
                now + Duration::from_millis(delay_ms)
            }
        };
        (0..copies).map(arrival).collect()
    }
}

#[test]
fn five_hundred_calls_over_a_bad_network_get_through_and_leave_nothing() {
    let site = Site::new();
    let mut gateway = site.start();
    let all_ports = gateway.figure("earmark_media_free_port_pairs");
    let [callee_at, before_callee, caller_at, before_caller] = [5, 6, 7, 8].map(|host| site.address(host));
    let relays = [
        (site.pbx(), before_callee, callee_at, 0xBAD_CAB1E),
        (site.carrier(), before_caller, caller_at, 0xBAD_A17),
    ];
    let relays = relays.map(|(towards_gateway, towards_phone, phone, seed)| {
        Relay::start(Between { towards_gateway, gateway: site.gateway(), towards_phone, phone }, seed)
    });
    let callee = Callee::start(callee_at);
    let caller = Caller::new(caller_at, before_caller);
    let failures = caller.calls((NEVER, CITIZEN), CALLS, CALLS_A_SECOND);
    assert!(failures.is_empty(), "{} of {CALLS} failed: {failures:#?}", failures.len());
    for relay in &relays {
        let [carried, lost, overtaking, doubled] = relay.fates();
        assert!(carried > 5_000, "{carried}");
        for (count, of_a_hundred) in [(lost, LOST), (overtaking, OVERTAKING), (doubled, DOUBLED)] {
            let usual = carried * of_a_hundred / 100;
            assert!((usual / 2..usual * 2).contains(&count), "{count} of {carried}");
        }
    }
    gateway.runs_out();
    let (calls, failures) = callee.stop();
    assert_eq!((calls, failures), (CALLS, Vec::new()), "what the callee has seen to its end");
    assert_eq!(gateway.figure("earmark_media_free_port_pairs"), all_ports);
    gateway.lives();
    let records = site.closed_calls(CALLS);
    for record in &records {
        assert_eq!(
            (&record["outcome"], &record["ended_by"]),
            (&"answered".into(), &"caller".into()),
            "{record}"
        );
    }
}
