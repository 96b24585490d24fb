//! Authentication fields in both directions (RFC 3261 §22, RFC 7616).

use std::borrow::Cow;

use consent::Mono;
use zeroize::Zeroizing;

use crate::digest::{Challenge, Client, Credentials, Lesson, Server, Verdict};
use crate::wire::{Headers, Method, Request, name};
use crate::{Account, Algorithm, PeerId, Secret};

/// The value of a WWW-Authenticate or an Authorization.
pub fn digest(octets: &[u8]) {
    let Ok(field) = std::str::from_utf8(octets) else { return };
    // As the codec and `Headers` leave a field.
    let mut fields = Headers::new();
    fields.push(name::WWW_AUTHENTICATE, field.trim_ascii());
    let Some(field) = fields.first(name::WWW_AUTHENTICATE) else { return };
    for challenge in Challenge::list(field) {
        // We write our own only: with an algorithm, with `qop`, without `opaque`.
        let ours = Challenge { opaque: None, named: true, counted: true, ..challenge };
        assert_eq!(Challenge::list(&ours.field()), [ours]);
    }
    // A count is written without quotes: ours has eight digits.
    let is_plain =
        |(nc, _): &(Cow<'_, str>, Cow<'_, str>)| nc.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let credentials = Credentials::parse(field);
    if let Some(credentials) = credentials.filter(|read| read.count.as_ref().is_none_or(is_plain)) {
        let written = credentials.field();
        assert_eq!(Credentials::parse(&written), Some(credentials), "{written}");
    }
    answers(&fields);
    judges(field);
}

fn account() -> Account {
    Account {
        username: String::from("bob\\\""),
        password: Secret::new(Zeroizing::new(String::from("zanzibar"))),
        realm: None,
        algorithms: Algorithm::ALL.to_vec(),
        challenge: None,
        register_s: None,
    }
}

/// What answers a challenge is one field that names its realm and nonce.
fn answers(failure: &Headers) {
    let mut client = Client::default();
    let mut request = Request::new(Method::INVITE, "sip:bob@biloxi.example");
    let lesson = client.learn(&account(), failure, &request, 0);
    client.authorize(&account(), &mut request, || String::from("0a4f113b"));
    let sent: Vec<&str> = request.headers.all(name::AUTHORIZATION).collect();
    assert_eq!(sent.is_empty(), lesson != Lesson::Answerable);
    for field in sent {
        let read = Credentials::parse(field).map(|credentials| credentials.realm.into_owned());
        let asked: Vec<String> =
            failure.all(name::WWW_AUTHENTICATE).flat_map(Challenge::list).map(|one| one.realm).collect();
        assert!(read.is_some_and(|realm| asked.contains(&realm)), "{field}");
        assert!(!field.contains(['\r', '\n', '\0']), "{field}");
    }
}

/// Nothing that is made up is proof.
fn judges(field: &str) {
    let mut request = Request::new(Method::INVITE, "sip:bob@biloxi.example");
    request.headers.push(name::AUTHORIZATION, field);
    let mut server = Server::new(&[7; 32], PeerId(0));
    let verdict = server.judge(&account(), "district", &request, Mono(9_000_000));
    assert!(verdict != Verdict::Proven, "{field}");
}
