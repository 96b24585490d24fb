//! Digest authentication in both directions (RFC 3261 §22, RFC 7616, RFC 8760), without I/O and clock.
//!
//! | module | what it is |
//! |---|---|
//! | `fields` | challenges and credentials as they stand in header fields |
//! | [`client`] | our credentials for a peer that challenges us |
//! | [`nonce`] | the nonces of our own challenges, and which of their counts were used |
//! | [`server`] | whether a peer's credentials are good, and the challenge if they are not |
//!
//! Left out: `auth-int` (bodies change on their way through us), the `-sess` algorithms and `userhash`
//! (nobody in telephony asks for them), and Authentication-Info, which RFC 3261 §20.6 leaves optional.

mod client;
mod fields;
mod nonce;
mod server;
#[cfg(test)]
mod tests;

pub(crate) use client::{Client, Lesson};
#[cfg(any(test, fuzzing))]
pub(crate) use fields::{Challenge, Credentials};
pub(crate) use server::{Server, Verdict};

use md5::{Digest, Md5};
use sha2::{Sha256, Sha512_256};
use zeroize::Zeroizing;

use crate::wire::{Headers, name};
use crate::{Account, Algorithm};

/// What a response is computed over besides name and password, each value without its quotes.
struct Exchange<'a> {
    realm: &'a str,
    nonce: &'a str,
    method: &'a str,
    uri: &'a str,
    /// `None` for a server that knows no `qop` (RFC 2069).
    count: Option<Count<'a>>,
}

/// What `qop=auth` adds.
struct Count<'a> {
    /// The nonce count as it stands on the wire: eight hexadecimal digits.
    nc: &'a str,
    cnonce: &'a str,
}

/// The response (RFC 7616 §3.4.1 to §3.4.3), in lower case hexadecimal digits.
fn response(algorithm: Algorithm, account: &Account, exchange: &Exchange<'_>) -> String {
    let a1 = [account.username.as_str(), exchange.realm, account.password.reveal()];
    let a1 = Zeroizing::new(hash(algorithm, &a1));
    let a2 = hash(algorithm, &[exchange.method, exchange.uri]);
    match &exchange.count {
        Some(Count { nc, cnonce }) => hash(algorithm, &[&a1, exchange.nonce, nc, cnonce, "auth", &a2]),
        None => hash(algorithm, &[&a1, exchange.nonce, &a2]),
    }
}

/// The hash of parts joined by colons.
fn hash(algorithm: Algorithm, parts: &[&str]) -> String {
    match algorithm {
        Algorithm::Md5 => hash_with::<Md5>(parts),
        Algorithm::Sha256 => hash_with::<Sha256>(parts),
        Algorithm::Sha512_256 => hash_with::<Sha512_256>(parts),
    }
}

fn hash_with<D: Digest>(parts: &[&str]) -> String {
    let mut hash = D::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            hash.update(b":");
        }
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

/// The credentials of an INVITE, which the ACK of its 2xx has too (RFC 3261 §22.1).
pub(crate) fn credentials_of(sent: &Headers) -> Headers {
    let mut credentials = Headers::new();
    for field in [name::AUTHORIZATION, name::PROXY_AUTHORIZATION] {
        credentials.copy(sent, field);
    }
    credentials
}
