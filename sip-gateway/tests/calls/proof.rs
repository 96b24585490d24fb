//! The other side's digest (RFC 7616), written anew: what it shares with the gateway are the hash functions.

use md5::{Digest, Md5};
use sha2::{Sha256, Sha512_256};
use sip_gateway::{Account, Algorithm, Secret};

pub const USER: &str = "trunk-18607427300";
pub const PASSWORD: &str = "correct horse, battery \"staple\"";

pub fn account() -> Account {
    Account {
        username: USER.to_owned(),
        password: Secret::new(PASSWORD.to_owned().into()),
        realm: None,
        algorithms: Algorithm::ALL.to_vec(),
        challenge: None,
        register_s: None,
    }
}

/// A parameter of a challenge or of credentials, without quotes.
#[track_caller]
pub fn param<'a>(field: &'a str, name: &str) -> &'a str {
    find(field, name).unwrap_or_else(|| panic!("no {name} in {field}"))
}

pub fn find<'a>(field: &'a str, name: &str) -> Option<&'a str> {
    let start = [", ", " "].iter().find_map(|before| {
        let key = format!("{before}{name}=");
        field.find(&key).map(|at| at + key.len())
    })?;
    let rest = &field[start..];
    Some(match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap(),
        None => rest.split(',').next().unwrap(),
    })
}

fn hash(algorithm: &str, text: &str) -> String {
    let bytes = match algorithm {
        "MD5" => Md5::digest(text).to_vec(),
        "SHA-256" => Sha256::digest(text).to_vec(),
        "SHA-512-256" => Sha512_256::digest(text).to_vec(),
        other => panic!("{other}"),
    };
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn response(algorithm: &str, password: &str, field: &str, method: &str) -> String {
    let a1 = hash(algorithm, &format!("{}:{}:{password}", param(field, "username"), param(field, "realm")));
    let a2 = hash(algorithm, &format!("{method}:{}", param(field, "uri")));
    let nonce = param(field, "nonce");
    let rest = match find(field, "qop") {
        Some(qop) => format!("{nonce}:{}:{}:{qop}:{a2}", param(field, "nc"), param(field, "cnonce")),
        None => format!("{nonce}:{a2}"),
    };
    hash(algorithm, &format!("{a1}:{rest}"))
}

/// Whether the gateway's credentials are those of [`account`].
#[track_caller]
pub fn assert_good(field: &str, method: &str, uri: &str) {
    assert_eq!((param(field, "username"), param(field, "uri")), (USER, uri));
    let algorithm = find(field, "algorithm").unwrap_or("MD5");
    assert_eq!(param(field, "response"), response(algorithm, PASSWORD, field, method), "{field}");
}

/// A client of the gateway that answers its challenges.
pub struct Prover {
    pub password: String,
    pub challenge: String,
    pub count: u32,
}

impl Prover {
    pub fn new(challenge: &str) -> Self {
        Self { password: PASSWORD.to_owned(), challenge: challenge.to_owned(), count: 0 }
    }

    /// An Authorization field for a request, with the next count.
    pub fn field(&mut self, method: &str, uri: &str) -> String {
        self.count += 1;
        let (realm, nonce) = (param(&self.challenge, "realm"), param(&self.challenge, "nonce"));
        let algorithm = param(&self.challenge, "algorithm");
        let field = format!(
            "Digest username=\"{USER}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             algorithm={algorithm}, qop=auth, cnonce=\"0a4f\", nc={:08x}",
            self.count
        );
        let response = response(algorithm, &self.password, &field, method);
        format!("Authorization: {field}, response=\"{response}\"\r\n")
    }
}
