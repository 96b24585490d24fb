//! What peers and we prove to each other (RFC 3261 §22): the accounts of `digest`, peer by peer, and requests
//! of ours that are sent again with an answer to a challenge.
//!
//! What one of a peer's addresses has asked for is told to no other: a second server of its may be of another
//! realm, and then the answer for the first would only help it to guess the password.

use std::collections::VecDeque;
use std::net::IpAddr;

use bytes::Bytes;

use super::{Core, Environment, Origin, Path};
use crate::b2bua::Owner;
use crate::dialog::{DialogId, sequence_of};
use crate::digest::{Client, Lesson, Server, Verdict};
use crate::transaction::{Heard, TxId};
use crate::wire::{Headers, Message, Method, Request, name, parse_datagram};
use crate::{Account, Config, Limits, PeerId};

/// Addresses of one peer whose challenges are kept; beyond: the oldest is forgotten, and challenges us anew.
const MAX_ADDRESSES: usize = 16;

/// Both directions of one account.
struct Shared {
    account: Account,
    clients: VecDeque<(IpAddr, Client)>,
    server: Server,
}

impl Shared {
    fn known(&mut self, address: IpAddr) -> Option<(&Account, &mut Client)> {
        let (_, client) = self.clients.iter_mut().find(|(known, _)| *known == address)?;
        Some((&self.account, client))
    }
}

/// All accounts, by [`PeerId`].
pub(crate) struct Authentication(Vec<Option<Shared>>);

impl Authentication {
    pub(crate) fn new(config: &Config, key: &[u8; 32]) -> Self {
        let shared = |(index, peer): (usize, &crate::Peer)| {
            let account = peer.account.clone()?;
            let server = Server::new(key, PeerId(index));
            Some(Shared { account, clients: VecDeque::new(), server })
        };
        Self(config.peers.iter().enumerate().map(shared).collect())
    }

    fn with(&mut self, peer: PeerId) -> Option<&mut Shared> {
        self.0.get_mut(peer.0)?.as_mut()
    }
}

/// A request of ours on its way again.
pub(crate) struct Again {
    pub(crate) client: TxId,
    pub(crate) branch: String,
    pub(crate) path: Path,
    pub(crate) request: Request,
}

impl Environment {
    /// Puts our credentials on a request to a peer, if its address has asked for any before.
    pub(crate) fn authorize(&mut self, path: &Path, request: &mut Request) {
        let Self { authentication, generator, .. } = self;
        let shared = authentication.with(path.peer);
        if let Some((account, client)) = shared.and_then(|shared| shared.known(path.to.ip())) {
            client.authorize(account, request, || generator.cnonce());
        }
    }

    /// Whether a peer has to prove itself.
    pub(super) fn challenges(&self, peer: PeerId) -> bool {
        self.config.peers.get(peer.0).and_then(|peer| peer.account.as_ref()?.challenge.as_ref()).is_some()
    }

    /// Judges the credentials of a peer that has to.
    pub(super) fn verdict_on(&mut self, peer: PeerId, request: &Request) -> Verdict {
        let now = self.now.mono;
        match self.authentication.with(peer) {
            Some(Shared { account, server, .. }) => {
                let realm = account.challenge.as_deref().unwrap_or_default();
                server.judge(account, realm, request, now)
            }
            None => Verdict::Absent,
        }
    }

    /// The values of the WWW-Authenticate fields for a peer.
    pub(super) fn challenge(&mut self, peer: PeerId, stale: bool) -> Vec<String> {
        let salt = self.generator.draw();
        let now = self.now.mono;
        let Some(Shared { account, server, .. }) = self.authentication.with(peer) else { return Vec::new() };
        let realm = account.challenge.as_deref().unwrap_or_default();
        server.challenge(account, realm, stale, now, salt)
    }

    /// What the failure of a request of ours teaches.
    fn learn(&mut self, path: &Path, failure: &Headers, sent: &Request, answers: u8) -> Lesson {
        let Some(shared) = self.authentication.with(path.peer) else { return Lesson::Unanswerable };
        let address = path.to.ip();
        if shared.known(address).is_none() {
            if shared.clients.len() >= MAX_ADDRESSES {
                shared.clients.pop_front();
            }
            shared.clients.push_back((address, Client::default()));
        }
        let Some((account, client)) = shared.known(address) else { return Lesson::Unanswerable };
        let lesson = client.learn(account, failure, sent, answers);
        if lesson == Lesson::Refused {
            let peer = self.config.peers.get(path.peer.0).map_or("", |peer| peer.name.as_str());
            tracing::warn!(peer, "the peer refuses our credentials");
        }
        lesson
    }
}

impl Core {
    /// Answers the challenge of a 401 or 407: the same request with credentials and the next sequence number,
    /// in a new transaction (§22.2, §22.3). `false` if the failure stands: there is no answer, or nobody waits
    /// for one any more.
    pub(super) fn answer_challenge(
        &mut self,
        origin: Origin,
        heard: &Heard<Owner>,
        failure: &Headers,
    ) -> bool {
        let Some(mut request) = self.read_back(&heard.request) else { return false };
        if matches!(request.method, Method::ACK | Method::CANCEL) || !self.is_wanted(heard) {
            return false;
        }
        if self.env.learn(&heard.path, failure, &request, heard.answers) != Lesson::Answerable {
            return false;
        }
        self.env.counters().answered_challenges += 1;
        let sequence = self.next_sequence(&request.headers);
        request.headers.set(name::CSEQ, format!("{sequence} {}", request.method.as_str()));
        let mut path = heard.path;
        path.follow(origin);
        self.env.authorize(&path, &mut request);
        let branch = self.env.stamp_via_again(&path, &mut request);
        let answers = heard.answers.saturating_add(1);
        let client = self.env.open_client(path, &request, branch.clone(), heard.owner, answers);
        self.tell_owner(heard.owner, Again { client, branch, path, request });
        true
    }

    /// Our own request, from the octets that were sent.
    fn read_back(&self, octets: &Bytes) -> Option<Request> {
        let limits = Limits {
            max_message_bytes: usize::MAX,
            max_headers: usize::MAX,
            ..self.env.config.limits.clone()
        };
        match parse_datagram(octets, &limits) {
            Ok(Message::Request(request)) => Some(request),
            Ok(Message::Response(_)) | Err(_) => None,
        }
    }

    fn is_wanted(&self, heard: &Heard<Owner>) -> bool {
        match heard.owner {
            Owner::Call(call, role) => {
                self.calls.get(&call).is_some_and(|call| call.wants_again(role, heard.id))
            }
            Owner::Ping(way) => self.env.is_ping(way, heard.id),
            Owner::Nobody | Owner::Registration(_) => true,
        }
    }

    fn tell_owner(&mut self, owner: Owner, again: Again) {
        match owner {
            Owner::Call(call, role) => {
                self.with_call(call, |call, env| call.sent_again(env, role, again));
            }
            Owner::Ping(way) => self.env.pinged_again(way, again.client),
            Owner::Registration(peer) => self.registered_again(peer, &again),
            Owner::Nobody => {}
        }
    }

    /// The next sequence number of the dialog that a request belongs to, or of the request itself.
    fn next_sequence(&mut self, sent: &Headers) -> u32 {
        let place = DialogId::of_sent(sent).and_then(|id| self.env.dialogs.get(&id).copied());
        let inside = place.and_then(|place| self.calls.get_mut(&place.call)?.next_sequence(place));
        inside.unwrap_or_else(|| sequence_of(sent).unwrap_or_default().saturating_add(1))
    }
}
