//! The UDP sockets of a call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use consent::{Leg, Mono};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::ports::PortPool;
use crate::session::{Path, Port};

/// Half a second of one stream at 100 packets/s, headers and kernel overhead included.
const SOCKET_BUFFER_BYTES: usize = 128 * 1024;
/// Expedited Forwarding (RFC 3246, code point 46) in the place of the TOS octet.
const EXPEDITED_FORWARDING: u32 = 46 << 2;
/// Pairs tried when somebody else holds their ports.
const BIND_ATTEMPTS: usize = 64;

/// Why a call has no media ports.
#[derive(Debug, thiserror::Error)]
pub(super) enum BindError {
    /// All pairs are in use or resting.
    #[error("no media port is free")]
    Exhausted,
    /// The address cannot be bound, whatever the port.
    #[error("cannot bind media ports on {address}")]
    Refused {
        /// The configured address.
        address: IpAddr,
        /// The last port's error.
        source: io::Error,
    },
}

/// All sockets of one call: for each stream a pair towards each leg.
#[derive(Debug)]
pub(super) struct CallSockets {
    sockets: Vec<UdpSocket>,
    pairs: Vec<u16>,
}

impl CallSockets {
    /// Binds two pairs for each stream. Must be called within the runtime that will poll them.
    pub(super) fn bind(
        pool: &Mutex<PortPool>,
        address: IpAddr,
        streams: u8,
        now: Mono,
        emergency: bool,
    ) -> Result<Self, BindError> {
        let mut bound = Self { sockets: Vec::new(), pairs: Vec::new() };
        for _ in 0..usize::from(streams) * 2 {
            match bind_pair(pool, address, now, emergency) {
                Ok((rtp, pair)) => {
                    bound.pairs.push(rtp);
                    bound.sockets.extend(pair);
                }
                Err(error) => {
                    bound.release(pool, now);
                    return Err(error);
                }
            }
        }
        Ok(bound)
    }

    /// The socket of a path.
    pub(super) fn socket(&self, path: Path) -> Option<&UdpSocket> {
        let port = usize::from(path.port == Port::Rtcp);
        self.sockets.get((usize::from(path.stream) * 2 + path.leg.index()) * 2 + port)
    }

    /// Every path that has a socket.
    pub(super) fn paths(&self) -> impl Iterator<Item = Path> + '_ {
        let streams = 0..u8::try_from(self.pairs.len() / 2).unwrap_or(u8::MAX);
        streams.flat_map(|stream| {
            Leg::BOTH.into_iter().flat_map(move |leg| {
                [Port::Rtp, Port::Rtcp].into_iter().map(move |port| Path { stream, leg, port })
            })
        })
    }

    /// Our RTP addresses as others reach them, per stream towards A and towards B.
    pub(super) fn addresses(&self, advertised: IpAddr) -> Vec<[SocketAddr; 2]> {
        let pairs = self.pairs.as_chunks::<2>().0;
        pairs.iter().map(|pair| pair.map(|port| SocketAddr::new(advertised, port))).collect()
    }

    /// Gives the ports back to the pool.
    pub(super) fn release(&self, pool: &Mutex<PortPool>, now: Mono) {
        let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
        for rtp in &self.pairs {
            pool.give_back(now, *rtp);
        }
    }
}

fn bind_pair(
    pool: &Mutex<PortPool>,
    address: IpAddr,
    now: Mono,
    emergency: bool,
) -> Result<(u16, [UdpSocket; 2]), BindError> {
    let mut refusal = None;
    for _ in 0..BIND_ATTEMPTS {
        let taken = pool.lock().unwrap_or_else(PoisonError::into_inner).take(now, emergency);
        let Some(rtp) = taken else { break };
        let bind = |port| bind_one(SocketAddr::new(address, port));
        match bind(rtp).and_then(|first| Ok([first, bind(rtp + 1)?])) {
            Ok(pair) => return Ok((rtp, pair)),
            Err(source) => refusal = Some(source),
        }
        pool.lock().unwrap_or_else(PoisonError::into_inner).give_back(now, rtp);
    }
    Err(refusal.map_or(BindError::Exhausted, |source| BindError::Refused { address, source }))
}

fn bind_one(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    // Size and marking are wishes: a system that refuses them still relays.
    let wishes = [
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES),
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES),
        match address {
            SocketAddr::V4(_) => socket.set_tos_v4(EXPEDITED_FORWARDING),
            SocketAddr::V6(_) => socket.set_tclass_v6(EXPEDITED_FORWARDING),
        },
    ];
    for refused in wishes.into_iter().filter_map(Result::err) {
        tracing::trace!(error = %refused, "a socket option was refused");
    }
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}
