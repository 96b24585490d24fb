//! What a peer and we know of each other: a name, a secret, and what they are used for.
//!
//! Neither the name nor the secret is ever printed: `Debug` leaves both out.

use std::fmt;

use zeroize::Zeroizing;

/// A password. Zeroed when dropped; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes it over.
    pub const fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A digest algorithm of RFC 8760 §2.1; the weaker are less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is its own name")]
pub enum Algorithm {
    Md5,
    Sha256,
    Sha512_256,
}

impl Algorithm {
    /// All, the strongest first: the order in which a server prefers them (RFC 8760 §2.3).
    pub const ALL: [Self; 3] = [Self::Sha512_256, Self::Sha256, Self::Md5];

    /// Its name on the wire (IANA "Hash Algorithms for HTTP Digest Authentication").
    pub const fn token(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
            Self::Sha512_256 => "SHA-512-256",
        }
    }

    /// The one of that name, in any case.
    pub fn of_token(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.token().eq_ignore_ascii_case(token))
    }
}

/// The account that a peer and we share (RFC 3261 §22).
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// The name in credentials, and the user part of our address of record where we register.
    pub username: String,
    /// The password.
    pub password: Secret,
    /// The realm whose challenges are answered; `None`: any that this peer sends.
    pub realm: Option<String>,
    /// What we accept in either direction.
    pub algorithms: Vec<Algorithm>,
    /// The realm in which this peer's requests are challenged; `None`: they are not.
    pub challenge: Option<String>,
    /// For how many seconds we ask to be registered with this peer; `None`: we do not register.
    pub register_s: Option<u32>,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("algorithms", &self.algorithms)
            .field("challenge", &self.challenge.is_some())
            .field("register_s", &self.register_s)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_name_nor_password_is_printed() {
        let account = Account {
            username: "trunk-name".to_owned(),
            password: Secret::new(Zeroizing::new("open sesame".to_owned())),
            realm: Some("carrier.example".to_owned()),
            algorithms: Algorithm::ALL.to_vec(),
            challenge: None,
            register_s: Some(60),
        };
        let printed = format!("{account:?} {:?}", account.password);
        assert!(!printed.contains("trunk-name") && !printed.contains("sesame"), "{printed}");
    }
}
