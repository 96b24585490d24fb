//! Whether a peer's credentials are good, and the challenge if they are not (RFC 3261 §22.1, §22.4;
//! RFC 8760 §2.3).
//!
//! | credentials for our realm | verdict |
//! |---|---|
//! | none | Absent |
//! | without `qop=auth`, of another name, algorithm, number or password | Wrong |
//! | right, but the nonce is not ours or too old, or its count was used | Stale |
//! | right | Proven |
//!
//! A user in the digest's `uri` must be the Request-URI's, so that credentials overheard for one number place
//! no call to another (RFC 7616 §3.4.6 asks for the same resource). The rest may differ: proxies between a
//! telephone and us rewrite host and parameters, and some clients (SIPp) name the server alone.

use consent::Mono;
use ctutils::CtEq as _;

use super::fields::{Challenge, Credentials};
use super::nonce::{Nonces, Used};
use super::{Count, Exchange, response};
use crate::wire::{Request, Uri, name};
use crate::{Account, Algorithm, PeerId};

/// Credentials weighed of one request (RFC 8760 §2.4 lets a client send several).
const MAX_CREDENTIALS: usize = 4;

/// What a request's credentials are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Proven,
    Stale,
    Wrong,
    Absent,
}

/// Challenges one peer.
pub(crate) struct Server {
    nonces: Nonces,
    used: Used,
}

impl Server {
    /// `key` is secret; the same for all peers.
    pub(crate) fn new(key: &[u8; 32], peer: PeerId) -> Self {
        Self { nonces: Nonces::new(key, peer), used: Used::default() }
    }

    /// Judges a request in `realm`. A count that was good is used up.
    pub(crate) fn judge(&mut self, account: &Account, realm: &str, request: &Request, now: Mono) -> Verdict {
        let fields = request.headers.all(name::AUTHORIZATION).filter_map(Credentials::parse);
        let ours = fields.filter(|credentials| credentials.realm == realm).take(MAX_CREDENTIALS);
        let mut verdict = Verdict::Absent;
        for credentials in ours {
            verdict = self.weigh(account, &credentials, request, now);
            if verdict == Verdict::Proven {
                break;
            }
        }
        verdict
    }

    fn weigh(
        &mut self,
        account: &Account,
        credentials: &Credentials<'_>,
        request: &Request,
        now: Mono,
    ) -> Verdict {
        let Some((nc, cnonce)) = &credentials.count else { return Verdict::Wrong };
        let known = credentials.username == account.username.as_str()
            && account.algorithms.contains(&credentials.algorithm)
            && stands_for(&credentials.uri, &request.uri);
        let exchange = Exchange {
            realm: &credentials.realm,
            nonce: &credentials.nonce,
            method: request.method.as_str(),
            uri: &credentials.uri,
            count: Some(Count { nc, cnonce }),
        };
        let expected = response(credentials.algorithm, account, &exchange);
        let given = credentials.response.to_ascii_lowercase();
        let right = expected.as_bytes().ct_eq(given.as_bytes()).to_bool();
        let Some(count) = count_of(nc).filter(|_| known && right) else { return Verdict::Wrong };
        match self.nonces.read(&credentials.nonce, now) {
            Some(issued) if self.used.take(issued, count, now) => Verdict::Proven,
            Some(_) | None => Verdict::Stale,
        }
    }

    /// The values of the WWW-Authenticate fields of a 401, one for each algorithm, the strongest first.
    /// `salt` is drawn anew for each.
    pub(crate) fn challenge(
        &self,
        account: &Account,
        realm: &str,
        stale: bool,
        now: Mono,
        salt: u64,
    ) -> Vec<String> {
        let nonce = self.nonces.issue(now, salt);
        let offered = Algorithm::ALL.into_iter().filter(|algorithm| account.algorithms.contains(algorithm));
        let challenge = |algorithm| Challenge {
            realm: realm.to_owned(),
            nonce: nonce.clone(),
            opaque: None,
            algorithm,
            named: true,
            counted: true,
            stale,
        };
        offered.map(|algorithm| challenge(algorithm).field()).collect()
    }
}

/// Eight hexadecimal digits (RFC 7616 §3.4).
fn count_of(nc: &str) -> Option<u32> {
    let digits = nc.len() == 8 && nc.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u32::from_str_radix(nc, 16).ok()).flatten()
}

/// Whether the digest's URI stands for the request's: the same text, the same user, or a server alone.
fn stands_for(digest_uri: &str, request_uri: &str) -> bool {
    let user = |uri| Uri::parse(uri).ok().map(|uri| uri.user());
    digest_uri == request_uri
        || match Uri::parse(digest_uri) {
            Ok(Uri::Sip(uri)) if uri.user.is_none() => true,
            Ok(Uri::Sip(_) | Uri::Tel(_)) => user(digest_uri) == user(request_uri),
            Ok(Uri::Other { .. }) | Err(_) => false,
        }
}
