//! Digest as client and server (RFC 3261 §22): the RFCs' vectors and examples, the rows of both tables, and
//! properties of the parsers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use consent::Mono;
use proptest::prelude::*;
use zeroize::Zeroizing;

use super::fields::{Challenge, Credentials};
use super::*;
use crate::wire::{Method, Request};
use crate::{PeerId, Secret};

const NOW: Mono = Mono(9_000_000);
const REALM: &str = "gw1";

fn account(username: &str, password: &str) -> Account {
    Account {
        username: username.to_owned(),
        password: Secret::new(Zeroizing::new(password.to_owned())),
        realm: None,
        algorithms: Algorithm::ALL.to_vec(),
        challenge: Some(REALM.to_owned()),
        register_s: None,
    }
}

fn bob() -> Account {
    account("bob", "zanzibar")
}

fn headers(fields: &[(&str, &str)]) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in fields {
        headers.push(name, *value);
    }
    headers
}

fn invite() -> Request {
    Request::new(Method::INVITE, "sip:bob@biloxi.com")
}

mod vectors {
    use super::*;

    /// RFC 2617 §3.5.
    #[test]
    fn mufasa_by_md5() {
        let exchange = Exchange {
            realm: "testrealm@host.com",
            nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093",
            method: "GET",
            uri: "/dir/index.html",
            count: Some(Count { nc: "00000001", cnonce: "0a4f113b" }),
        };
        let answer = response(Algorithm::Md5, &account("Mufasa", "Circle Of Life"), &exchange);
        assert_eq!(answer, "6629fae49393a05397450978507c4ef1");
    }

    /// RFC 7616 §3.9.1.
    #[test]
    fn mufasa_by_md5_and_sha_256() {
        let exchange = Exchange {
            realm: "http-auth@example.org",
            nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
            method: "GET",
            uri: "/dir/index.html",
            count: Some(Count { nc: "00000001", cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ" }),
        };
        let mufasa = account("Mufasa", "Circle of Life");
        assert_eq!(response(Algorithm::Md5, &mufasa, &exchange), "8ca523f5e9506fed4657c9700eebdbec");
        assert_eq!(
            response(Algorithm::Sha256, &mufasa, &exchange),
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
        );
    }

    /// RFC 7616 §3.9.2. Its own value is of a truncated SHA-512; this is the one of erratum 4897.
    #[test]
    fn doe_by_sha_512_256() {
        let exchange = Exchange {
            realm: "api@example.org",
            nonce: "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK",
            method: "GET",
            uri: "/doe.json",
            count: Some(Count { nc: "00000001", cnonce: "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v" }),
        };
        assert_eq!(
            response(Algorithm::Sha512_256, &account("J\u{e4}s\u{f8}n Doe", "Secret, or not?"), &exchange),
            "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"
        );
    }

    /// The Bob of RFC 3261 §22.4, with the password of draft-smith-sipping-auth-examples-01.
    #[test]
    fn bob_of_biloxi_without_and_with_qop() {
        let mut exchange = Exchange {
            realm: "biloxi.com",
            nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093",
            method: "INVITE",
            uri: "sip:bob@biloxi.com",
            count: None,
        };
        assert_eq!(response(Algorithm::Md5, &bob(), &exchange), "bf57e4e0d0bffc0fbaedce64d59add5e");
        exchange.count = Some(Count { nc: "00000001", cnonce: "0a4f113b" });
        assert_eq!(response(Algorithm::Md5, &bob(), &exchange), "89eb0059246c02b2f6ee02c7961d5ea3");
    }
}

mod reading {
    use super::*;

    #[test]
    fn the_challenges_of_the_rfcs() {
        let found = Challenge::list(
            "Digest realm=\"atlanta.com\", domain=\"sip:boxesbybob.com\", qop=\"auth\", \
             nonce=\"f84f1cec41e6cbe5aea9c8e88d359\", opaque=\"\", stale=FALSE, algorithm=MD5",
        );
        let rfc_3261_20_44 = Challenge {
            realm: "atlanta.com".to_owned(),
            nonce: "f84f1cec41e6cbe5aea9c8e88d359".to_owned(),
            opaque: Some(String::new()),
            algorithm: Algorithm::Md5,
            named: true,
            counted: true,
            stale: false,
        };
        assert_eq!(found, [rfc_3261_20_44]);
        let rfc_3261_22_4 = "Digest realm=\"biloxi.com\",qop=\"auth,auth-int\",\
                             nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\",\
                             opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";
        assert!(matches!(
            Challenge::list(rfc_3261_22_4)[..],
            [Challenge { counted: true, named: false, .. }]
        ));
    }

    #[test]
    fn credentials_of_rfc_3665() {
        let field = "Digest username=\"alice\", realm=\"atlanta.example.com\", \
                     nonce=\"wf84f1ceczx41ae6cbe5aea9c8e88d359\", opaque=\"\", \
                     uri=\"sip:bob@biloxi.example.com\", response=\"42ce3cef44b22f50c6a6071bc8\"";
        let credentials = Credentials::parse(field).unwrap();
        assert_eq!((&*credentials.username, &*credentials.uri), ("alice", "sip:bob@biloxi.example.com"));
        assert_eq!((credentials.algorithm, credentials.count), (Algorithm::Md5, None));
    }

    #[test]
    fn what_a_friendly_reader_takes() {
        let odd = [
            "digest REALM = \"a\" ,\tNonce=\"b\"",
            "Digest realm=a,nonce=b",
            "Digest realm=\"a\",,nonce=\"b\",",
            "Basic realm=\"x\", Digest realm=\"a\", nonce=\"b\"",
            "Digest realm=\"x\", nonce=\"y\", algorithm=MD4, Digest realm=\"a\", nonce=\"b\"",
            "Digest realm=\"a\", nonce=\"b\", algorithm=\"MD5\", qop=\"auth-int, AUTH\", stale=TRUE",
        ];
        for field in odd {
            let found = Challenge::list(field);
            let [challenge] = found.as_slice() else { panic!("{field}: {found:?}") };
            assert_eq!((challenge.realm.as_str(), challenge.nonce.as_str()), ("a", "b"), "{field}");
        }
        let escaped = Challenge::list("Digest realm=\"a\\\"b\\\\, c=d\", nonce=\"b\"");
        assert_eq!(escaped[0].realm, "a\"b\\, c=d");
    }

    #[test]
    fn what_cannot_be_answered_is_left_out() {
        let long = format!("Digest realm=\"a\", nonce=\"{}\"", "n".repeat(1025));
        let many = format!("Digest realm=\"a\", nonce=\"b\"{}", ", x=1".repeat(2));
        for field in [
            "",
            "Digest",
            "Digest ",
            "Basic realm=\"a\"",
            "Negotiate YII=",
            "Digest realm=\"a\"",
            "Digest nonce=\"b\"",
            "Digest realm=\"a, nonce=\"b\"",
            "Digest realm=\"a\"x, nonce=\"b\"",
            "Digest realm=\"a\", nonce=\"b\", algorithm=MD5-sess",
            "Digest realm=\"a\", nonce=\"b\", algorithm=AKAv1-MD5",
            "Digest realm=\"a\", nonce=\"b\", qop=\"auth-int\"",
            "Digest realm=\"a\", nonce=\"b\", realm=\"c\"",
            "Digest realm=\"a\", nonce",
            &long,
            &many,
        ] {
            assert_eq!(Challenge::list(field), [], "{field}");
        }
    }
}

mod asking {
    use super::*;

    const CHALLENGE: &str = "Digest realm=\"r\", nonce=\"n1\", qop=\"auth\"";

    fn learn(client: &mut Client, fields: &[(&str, &str)], sent: &Request, answers: u8) -> Lesson {
        client.learn(&bob(), &headers(fields), sent, answers)
    }

    fn authorised(client: &mut Client) -> Request {
        let mut request = invite();
        client.authorize(&bob(), &mut request, || "c".to_owned());
        request
    }

    fn credentials<'a>(request: &'a Request, field: &str) -> Vec<Credentials<'a>> {
        request.headers.all(field).map(|field| Credentials::parse(field).unwrap()).collect()
    }

    #[test]
    fn nothing_is_sent_unasked() {
        let request = authorised(&mut Client::default());
        assert_eq!(request, invite());
    }

    /// RFC 8760 §2.4.
    #[test]
    fn the_strongest_of_a_realm_is_answered_wherever_it_stands() {
        let mut client = Client::default();
        let fields = [
            ("WWW-Authenticate", "Digest realm=\"r\", nonce=\"a\", algorithm=MD5, qop=\"auth\""),
            ("WWW-Authenticate", "Digest realm=\"r\", nonce=\"b\", algorithm=SHA-512-256, qop=\"auth\""),
            ("WWW-Authenticate", "Digest realm=\"r\", nonce=\"c\", algorithm=SHA-256, qop=\"auth\""),
            ("WWW-Authenticate", "Digest realm=\"r\", nonce=\"d\", algorithm=SHA-3, qop=\"auth\""),
        ];
        assert_eq!(learn(&mut client, &fields, &invite(), 0), Lesson::Answerable);
        let request = authorised(&mut client);
        let found = credentials(&request, "Authorization");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].algorithm, &*found[0].nonce), (Algorithm::Sha512_256, "b"));
    }

    #[test]
    fn an_account_may_exclude_algorithms_and_realms() {
        let mut modern = bob();
        modern.algorithms = vec![Algorithm::Sha256];
        let md5 = headers(&[("WWW-Authenticate", CHALLENGE)]);
        assert_eq!(Client::default().learn(&modern, &md5, &invite(), 0), Lesson::Unanswerable);
        let mut elsewhere = bob();
        elsewhere.realm = Some("other".to_owned());
        assert_eq!(Client::default().learn(&elsewhere, &md5, &invite(), 0), Lesson::Unanswerable);
    }

    #[test]
    fn proxies_in_a_row_and_the_far_end_are_each_answered() {
        let mut client = Client::default();
        let proxies = [
            ("Proxy-Authenticate", CHALLENGE),
            ("Proxy-Authenticate", "Digest realm=\"s\", nonce=\"n2\", qop=\"auth\""),
        ];
        assert_eq!(learn(&mut client, &proxies, &invite(), 0), Lesson::Answerable);
        let once = authorised(&mut client);
        assert_eq!(credentials(&once, "Proxy-Authorization").len(), 2);
        let origin = [("WWW-Authenticate", CHALLENGE)];
        assert_eq!(learn(&mut client, &origin, &once, 1), Lesson::Answerable);
        let twice = authorised(&mut client);
        assert_eq!(credentials(&twice, "Authorization")[0].count.as_ref().unwrap().0, "00000001");
        let proxies = credentials(&twice, "Proxy-Authorization");
        assert!(proxies.iter().all(|known| known.count.as_ref().unwrap().0 == "00000002"));
    }

    #[test]
    fn a_refused_answer_is_given_once_and_a_stale_one_twice() {
        let stale = [("WWW-Authenticate", "Digest realm=\"r\", nonce=\"n2\", qop=\"auth\", stale=true")];
        let plain = [("WWW-Authenticate", CHALLENGE)];
        let mut client = Client::default();
        assert_eq!(learn(&mut client, &plain, &invite(), 0), Lesson::Answerable);
        let once = authorised(&mut client);
        assert_eq!(learn(&mut client, &plain, &once, 1), Lesson::Refused);
        assert_eq!(authorised(&mut client), invite(), "what was refused is not sent again");
        learn(&mut client, &plain, &invite(), 0);
        assert_eq!(learn(&mut client, &stale, &once, 1), Lesson::Answerable);
        assert_eq!(learn(&mut client, &stale, &once, 2), Lesson::Refused);
    }

    #[test]
    fn credentials_put_on_unasked_may_be_refused_without_harm() {
        let mut client = Client::default();
        learn(&mut client, &[("WWW-Authenticate", CHALLENGE)], &invite(), 0);
        authorised(&mut client);
        let unasked = authorised(&mut client);
        assert_eq!(credentials(&unasked, "Authorization")[0].count.as_ref().unwrap().0, "00000002");
        let anew = [("WWW-Authenticate", "Digest realm=\"r\", nonce=\"n2\", qop=\"auth\"")];
        assert_eq!(learn(&mut client, &anew, &unasked, 0), Lesson::Answerable);
        let answer = authorised(&mut client);
        let found = credentials(&answer, "Authorization");
        assert_eq!((&*found[0].nonce, found.len()), ("n2", 1));
    }

    #[test]
    fn the_registrars_nonce_is_not_shown_to_a_callee() {
        let mut client = Client::default();
        let register = Request::new(Method::REGISTER, "sip:carrier");
        learn(&mut client, &[("WWW-Authenticate", CHALLENGE)], &register, 0);
        assert_eq!(authorised(&mut client), invite());
        let mut again = register;
        client.authorize(&bob(), &mut again, || "c".to_owned());
        assert_eq!(credentials(&again, "Authorization").len(), 1);
    }

    #[test]
    fn realms_are_bounded() {
        let mut client = Client::default();
        for number in 0..9 {
            let challenge = format!("Digest realm=\"{number}\", nonce=\"n\"");
            learn(&mut client, &[("WWW-Authenticate", &challenge)], &invite(), 0);
        }
        let request = authorised(&mut client);
        let realms: Vec<_> =
            credentials(&request, "Authorization").iter().map(|known| known.realm.to_string()).collect();
        assert_eq!(realms, ["5", "6", "7", "8"]);
        assert_eq!(learn(&mut client, &[("WWW-Authenticate", CHALLENGE)], &invite(), 4), Lesson::Refused);
    }

    #[test]
    fn an_ack_carries_what_its_invite_did() {
        let from = headers(&[("Authorization", "a"), ("X", "y"), ("Proxy-Authorization", "b")]);
        assert_eq!(credentials_of(&from), headers(&[("Authorization", "a"), ("Proxy-Authorization", "b")]));
    }
}

mod judging {
    use super::*;

    struct Pair {
        client: Client,
        server: Server,
    }

    impl Pair {
        fn new() -> Self {
            Self { client: Client::default(), server: Server::new(&[9; 32], PeerId(0)) }
        }

        /// The client's answer to a challenge of the server's.
        fn answer(&mut self, account: &Account, at: Mono) -> Request {
            let mut failure = Headers::new();
            for challenge in self.server.challenge(&bob(), REALM, false, at, at.0) {
                failure.push("WWW-Authenticate", challenge);
            }
            assert_eq!(self.client.learn(account, &failure, &invite(), 0), Lesson::Answerable);
            self.next(account)
        }

        fn next(&mut self, account: &Account) -> Request {
            let mut request = invite();
            self.client.authorize(account, &mut request, || "cnonce".to_owned());
            request
        }

        fn judge(&mut self, request: &Request, at: Mono) -> Verdict {
            self.server.judge(&bob(), REALM, request, at)
        }
    }

    /// RFC 8760 §2.3.
    #[test]
    fn the_three_algorithms_are_offered_strongest_first_and_may_be_fewer() {
        let pair = Pair::new();
        let offered = pair.server.challenge(&bob(), REALM, true, NOW, 1);
        let found: Vec<_> = offered.iter().flat_map(|field| Challenge::list(field)).collect();
        let algorithms: Vec<_> = found.iter().map(|challenge| challenge.algorithm).collect();
        assert_eq!(algorithms, [Algorithm::Sha512_256, Algorithm::Sha256, Algorithm::Md5]);
        assert!(
            found.iter().all(|challenge| challenge.stale && challenge.counted && challenge.realm == REALM)
        );
        let mut modern = bob();
        modern.algorithms = vec![Algorithm::Sha256];
        assert_eq!(pair.server.challenge(&modern, REALM, false, NOW, 1).len(), 1);
    }

    #[test]
    fn every_algorithm_proves() {
        for algorithm in Algorithm::ALL {
            let mut pair = Pair::new();
            let mut only = bob();
            only.algorithms = vec![algorithm];
            let request = pair.answer(&only, NOW);
            assert!(request.headers.first("Authorization").unwrap().contains(algorithm.token()));
            assert_eq!(pair.judge(&request, NOW), Verdict::Proven);
        }
    }

    #[test]
    fn no_credentials_or_another_realms_are_absent() {
        let mut pair = Pair::new();
        assert_eq!(pair.judge(&invite(), NOW), Verdict::Absent);
        let request = pair.answer(&bob(), NOW);
        assert_eq!(pair.server.judge(&bob(), "other", &request, NOW), Verdict::Absent);
        let mut proxy = invite();
        proxy.headers.push("Proxy-Authorization", request.headers.first("Authorization").unwrap());
        assert_eq!(pair.judge(&proxy, NOW), Verdict::Absent);
    }

    #[test]
    fn a_wrong_password_name_method_or_number_is_wrong() {
        let mut pair = Pair::new();
        let request = pair.answer(&account("bob", "zanzibaR"), NOW);
        assert_eq!(pair.judge(&request, NOW), Verdict::Wrong);
        let request = pair.answer(&account("Bob", "zanzibar"), NOW);
        assert_eq!(pair.judge(&request, NOW), Verdict::Wrong);
        let mut request = pair.answer(&bob(), NOW);
        request.method = Method::REFER;
        assert_eq!(pair.judge(&request, NOW), Verdict::Wrong);
        request.method = Method::INVITE;
        request.uri = "sip:9005550100@biloxi.com".to_owned();
        assert_eq!(pair.judge(&request, NOW), Verdict::Wrong);
        for odd in ["mailto:bob@biloxi.com", "urn:service:sos", "nonsense"] {
            request.uri = odd.to_owned();
            assert_eq!(pair.judge(&request, NOW), Verdict::Wrong, "{odd}");
        }
        request.uri = "sip:bob@proxy.biloxi.com:5070;user=phone".to_owned();
        assert_eq!(pair.judge(&request, NOW), Verdict::Proven);
    }

    #[test]
    fn a_client_may_name_the_server_alone() {
        let mut pair = Pair::new();
        pair.answer(&bob(), NOW);
        let mut request = Request::new(Method::INVITE, "sip:biloxi.com:5060");
        pair.client.authorize(&bob(), &mut request, || "cnonce".to_owned());
        request.uri = "sip:bob@biloxi.com".to_owned();
        assert_eq!(pair.judge(&request, NOW), Verdict::Proven);
    }

    #[test]
    fn without_a_count_nothing_is_proven() {
        let mut pair = Pair::new();
        let field = pair.server.challenge(&bob(), REALM, false, NOW, 1).remove(2);
        let bare = field.replace(", qop=\"auth\"", "");
        pair.client.learn(&bob(), &headers(&[("WWW-Authenticate", &bare)]), &invite(), 0);
        let request = pair.next(&bob());
        assert_eq!(pair.judge(&request, NOW), Verdict::Wrong);
        let mut signed = pair.answer(&bob(), NOW);
        let field = signed.headers.first("Authorization").unwrap().replace("nc=00000001", "nc=+0000001");
        signed.headers.set("Authorization", field);
        assert_eq!(pair.judge(&signed, NOW), Verdict::Wrong);
    }

    #[test]
    fn a_nonce_goes_on_with_the_next_count_and_never_with_the_same() {
        let mut pair = Pair::new();
        let first = pair.answer(&bob(), NOW);
        assert_eq!(pair.judge(&first, NOW), Verdict::Proven);
        assert_eq!(pair.judge(&first, NOW), Verdict::Stale);
        let second = pair.next(&bob());
        assert_eq!(pair.judge(&second, NOW), Verdict::Proven);
    }

    #[test]
    fn an_old_or_foreign_nonce_with_the_right_password_is_stale() {
        let mut pair = Pair::new();
        let request = pair.answer(&bob(), NOW);
        assert_eq!(pair.judge(&request, NOW.plus_ms(300_001)), Verdict::Stale);
        let mut restarted = Server::new(&[8; 32], PeerId(0));
        assert_eq!(restarted.judge(&bob(), REALM, &request, NOW), Verdict::Stale);
        let wrong = pair.answer(&account("bob", "x"), NOW);
        assert_eq!(restarted.judge(&bob(), REALM, &wrong, NOW), Verdict::Wrong);
    }

    #[test]
    fn good_credentials_beside_bad_ones_prove() {
        let mut pair = Pair::new();
        let wrong = pair.answer(&account("bob", "x"), NOW);
        let right = pair.answer(&bob(), NOW);
        let mut both = invite();
        for request in [&wrong, &right] {
            both.headers.push("Authorization", request.headers.first("Authorization").unwrap());
        }
        assert_eq!(pair.judge(&both, NOW), Verdict::Proven);
    }
}

/// Text that resembles a field: its pieces in any order.
fn fieldish() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("Digest ".to_owned()),
        Just("Basic ".to_owned()),
        Just(", ".to_owned()),
        Just("=".to_owned()),
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        Just("<".to_owned()),
        Just("qop=\"auth\"".to_owned()),
        Just("nonce=\"n\"".to_owned()),
        Just("nc=00000001".to_owned()),
        Just("algorithm=SHA-256".to_owned()),
        "(realm|username|uri|response|cnonce|opaque|stale|[a-z]{1,4})=\"?[^\r\n]{0,6}\"?",
        "[^\r\n]{0,8}",
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_field_breaks_the_readers(field in fieldish()) {
        let _ = Challenge::list(&field);
        let _ = Credentials::parse(&field);
        let mut request = invite();
        request.headers.push("Authorization", field.as_str());
        let verdict = Server::new(&[1; 32], PeerId(0)).judge(&bob(), REALM, &request, NOW);
        prop_assert!(matches!(verdict, Verdict::Absent | Verdict::Wrong));
        let failure = headers(&[("WWW-Authenticate", &field), ("Proxy-Authenticate", &field)]);
        let mut client = Client::default();
        client.learn(&bob(), &failure, &request, 0);
        client.authorize(&bob(), &mut request, || "c".to_owned());
    }

    #[test]
    fn credentials_are_read_as_they_were_written(
        username in "[^\r\n\u{0}]{0,20}",
        nonce in "[ -~]{0,40}",
        opaque in proptest::option::of("[ -~]{0,10}"),
        count in proptest::option::of(("[0-9a-f]{8}", "[ -~]{1,20}")),
    ) {
        let written = Credentials {
            username: username.into(),
            realm: "r,\"q\\".into(),
            nonce: nonce.into(),
            uri: "sip:x@y".into(),
            response: "0".into(),
            algorithm: Algorithm::Sha256,
            named: true,
            opaque: opaque.map(Into::into),
            count: count.map(|(nc, cnonce)| (nc.into(), cnonce.into())),
        };
        let field = written.field();
        prop_assert_eq!(Credentials::parse(&field), Some(written.clone()));
    }

    #[test]
    fn client_and_server_agree_on_any_password_and_realm(
        username in "[^\\x00-\\x1f\\x7f]{1,20}",
        password in "[^\r\n\u{0}]{1,40}",
        realm in "[^\\x00-\\x1f\\x7f]{1,20}",
    ) {
        let account = account(&username, &password);
        let mut server = Server::new(&[1; 32], PeerId(0));
        let mut failure = Headers::new();
        for challenge in server.challenge(&account, &realm, false, NOW, 1) {
            failure.push("WWW-Authenticate", challenge);
        }
        let mut client = Client::default();
        prop_assert_eq!(client.learn(&account, &failure, &invite(), 0), Lesson::Answerable);
        let mut request = invite();
        client.authorize(&account, &mut request, || "c".to_owned());
        prop_assert_eq!(server.judge(&account, &realm, &request, NOW), Verdict::Proven);
    }
}
