//! Our credentials for a peer that challenges us (RFC 3261 §22.2, §22.3; RFC 8760 §2.4).
//!
//! | a 401 or 407 has, of a realm | and the request had | effect |
//! |---|---|---|
//! | a challenge | no credentials for it | answered |
//! | a challenge | credentials put on unasked | answered |
//! | a challenge with `stale=true` | an answer, the first one | answered again |
//! | a challenge | any other answer | refused, and the nonce is forgotten |
//! | no challenge that we can answer | | nothing to do |
//!
//! Of several challenges of one realm the strongest is answered, wherever it stands: RFC 8760 §2.4 lets
//! local policy choose, and so nobody on the way can put a weaker one on top. Challenges of several realms
//! (proxies in a row, §22.3) are all answered. What was answered once is put on later requests to the same
//! peer unasked, with the next nonce count, until it is challenged anew.

use super::fields::{Challenge, Credentials};
use super::{Count, Exchange, response};
use crate::Account;
use crate::wire::{Headers, Method, Request, name};

/// Realms kept of one peer, and answered in one response; beyond: the oldest is forgotten.
const MAX_SPACES: usize = 4;

/// Challenge fields read of one response.
const MAX_FIELDS: usize = 16;

/// Answers in a row to one request, whoever asks for them.
const MAX_ANSWERS: u8 = 4;

/// What a 401 or 407 means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lesson {
    /// The request, authorised anew, is worth sending again.
    Answerable,
    /// Our credentials do not satisfy the peer.
    Refused,
    /// There is no challenge that we could answer.
    Unanswerable,
}

/// Who asks: the far end itself (401) or a proxy on the way (407).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Origin,
    Proxy,
}

impl Asker {
    const BOTH: [Self; 2] = [Self::Origin, Self::Proxy];

    const fn challenge(self) -> &'static str {
        match self {
            Self::Origin => name::WWW_AUTHENTICATE,
            Self::Proxy => name::PROXY_AUTHENTICATE,
        }
    }

    const fn credentials(self) -> &'static str {
        match self {
            Self::Origin => name::AUTHORIZATION,
            Self::Proxy => name::PROXY_AUTHORIZATION,
        }
    }
}

/// A challenge that was answered, for the requests to come.
#[derive(Debug)]
struct Space {
    asker: Asker,
    /// Whether it is the registrar's. What one of the two asked for is not shown to the other.
    registrar: bool,
    challenge: Challenge,
    /// How many requests have used the nonce.
    used: u32,
}

/// What one peer has asked us for.
#[derive(Debug, Default)]
pub(crate) struct Client {
    spaces: Vec<Space>,
}

impl Client {
    /// Takes in the challenges of a 401 or 407 to `sent`, which had been sent `answers` times before, each
    /// time with an answer.
    pub(crate) fn learn(
        &mut self,
        account: &Account,
        failure: &Headers,
        sent: &Request,
        answers: u8,
    ) -> Lesson {
        let registrar = sent.method == Method::REGISTER;
        let mut lesson = Lesson::Unanswerable;
        for asker in Asker::BOTH {
            for challenge in strongest(account, failure, asker) {
                let again = challenge.stale && answers == 1;
                let answered = answers > 0 && !again && has_credentials(sent, asker, &challenge.realm);
                self.forget(asker, registrar, &challenge.realm);
                if answered || answers >= MAX_ANSWERS {
                    return Lesson::Refused;
                }
                self.spaces.push(Space { asker, registrar, challenge, used: 0 });
                if self.spaces.len() > MAX_SPACES {
                    self.spaces.remove(0);
                }
                lesson = Lesson::Answerable;
            }
        }
        lesson
    }

    /// Puts our credentials on a request, in place of those that it has.
    pub(crate) fn authorize(
        &mut self,
        account: &Account,
        request: &mut Request,
        mut cnonce: impl FnMut() -> String,
    ) {
        for asker in Asker::BOTH {
            request.headers.remove(asker.credentials());
        }
        let registrar = request.method == Method::REGISTER;
        for space in self.spaces.iter_mut().filter(|space| space.registrar == registrar) {
            space.used = space.used.saturating_add(1);
            let credentials = space.credentials(account, request, cnonce());
            request.headers.push(space.asker.credentials(), credentials);
        }
    }

    fn forget(&mut self, asker: Asker, registrar: bool, realm: &str) {
        self.spaces.retain(|space| {
            (space.asker, space.registrar) != (asker, registrar) || space.challenge.realm != realm
        });
    }
}

impl Space {
    fn credentials(&self, account: &Account, request: &Request, cnonce: String) -> String {
        let Challenge { realm, nonce, opaque, algorithm, named, counted, .. } = &self.challenge;
        let count = counted.then(|| (format!("{:08x}", self.used), cnonce));
        let exchange = Exchange {
            realm,
            nonce,
            method: request.method.as_str(),
            uri: &request.uri,
            count: count.as_ref().map(|(nc, cnonce)| Count { nc, cnonce }),
        };
        let response = response(*algorithm, account, &exchange);
        let credentials = Credentials {
            username: account.username.as_str().into(),
            realm: realm.into(),
            nonce: nonce.into(),
            uri: request.uri.as_str().into(),
            response: response.into(),
            algorithm: *algorithm,
            named: *named,
            opaque: opaque.as_ref().map(Into::into),
            count: count.map(|(nc, cnonce)| (nc.into(), cnonce.into())),
        };
        credentials.field()
    }
}

/// Of each realm the strongest challenge that the account may answer; of equals the first.
fn strongest(account: &Account, failure: &Headers, asker: Asker) -> Vec<Challenge> {
    let mut best: Vec<Challenge> = Vec::new();
    let offered = failure.all(asker.challenge()).take(MAX_FIELDS).flat_map(Challenge::list);
    let ours = |challenge: &Challenge| {
        account.algorithms.contains(&challenge.algorithm)
            && account.realm.as_ref().is_none_or(|realm| *realm == challenge.realm)
    };
    for challenge in offered.filter(ours) {
        let room = best.len() < MAX_SPACES;
        match best.iter_mut().find(|known| known.realm == challenge.realm) {
            Some(known) if known.algorithm < challenge.algorithm => *known = challenge,
            None if room => best.push(challenge),
            Some(_) | None => {}
        }
    }
    best
}

fn has_credentials(sent: &Request, asker: Asker, realm: &str) -> bool {
    sent.headers.all(asker.credentials()).filter_map(Credentials::parse).any(|known| known.realm == realm)
}
