//! The network between gateway, PBX and carrier: datagrams are lost, doubled, delayed and overtaken.

use std::net::{Ipv4Addr, SocketAddr};

use crate::clock::{MS, Time};
use crate::random::Random;

pub(crate) const GATEWAY: SocketAddr = address([10, 0, 0, 1], 5060);
pub(crate) const PBX: SocketAddr = address([10, 0, 0, 2], 5060);
pub(crate) const CARRIER: SocketAddr = address([10, 0, 0, 3], 5060);
/// Somebody who has no business here.
pub(crate) const STRANGER: SocketAddr = address([10, 9, 9, 9], 40_000);

pub(crate) const fn address(ip: [u8; 4], port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3])), port)
}

/// How bad it is.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) loss_per_mille: u64,
    pub(crate) doubled_per_mille: u64,
    pub(crate) delay_ms: u64,
    pub(crate) jitter_ms: u64,
    random: Random,
}

impl Network {
    /// A network drawn at random: a third of them are clean.
    pub(crate) fn draw(random: &mut Random) -> Self {
        let clean = random.per_mille(330);
        let mut draw = |most| if clean { 0 } else { random.between(0, most) };
        let (loss_per_mille, doubled_per_mille, jitter_ms) = (draw(80), draw(50), draw(30));
        let delay_ms = random.between(1, 40);
        Self { loss_per_mille, doubled_per_mille, delay_ms, jitter_ms, random: random.split() }
    }

    pub(crate) const fn is_clean(&self) -> bool {
        self.loss_per_mille == 0
    }

    /// When the copies of a datagram sent at `now` arrive: none, one or two.
    pub(crate) fn arrivals(&mut self, now: Time) -> Vec<Time> {
        let copies = if self.random.per_mille(self.loss_per_mille) {
            0
        } else if self.random.per_mille(self.doubled_per_mille) {
            2
        } else {
            1
        };
        (0..copies).map(|_| now + self.delay_ms * MS + self.random.between(0, self.jitter_ms * MS)).collect()
    }
}
