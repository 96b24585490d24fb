//! The table row by row, and the examples of RFC 3263 and RFC 2782.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use super::*;

/// A zone as a test writes it: `name type values`, one record a line. What is not in it has no records; what
/// is in `away` is not answered, what is in `unknown` was not asked yet.
struct Zone {
    records: BTreeMap<Question, Records>,
    away: Vec<Question>,
    unknown: Vec<Question>,
}

fn zone_of(text: &str) -> Zone {
    let mut records = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let name = words[0].to_owned();
        let dotless = |name: &str| name.trim_end_matches('.').to_owned();
        match words[1] {
            "NAPTR" => {
                let naptr = Naptr {
                    order: words[2].parse().unwrap(),
                    preference: words[3].parse().unwrap(),
                    flags: words[4].to_owned(),
                    service: words[5].to_owned(),
                    replacement: dotless(words[6]),
                };
                let entry = records.entry(Question::Naptr(name)).or_insert(Records::Naptr(vec![]));
                let Records::Naptr(list) = entry else { unreachable!() };
                list.push(naptr);
            }
            "SRV" => {
                let srv = Srv {
                    priority: words[2].parse().unwrap(),
                    weight: words[3].parse().unwrap(),
                    port: words[4].parse().unwrap(),
                    target: dotless(words[5]),
                };
                let entry = records.entry(Question::Srv(name)).or_insert(Records::Srv(vec![]));
                let Records::Srv(list) = entry else { unreachable!() };
                list.push(srv);
            }
            _ => {
                let entry = records.entry(Question::Addresses(name)).or_insert(Records::Addresses(vec![]));
                let Records::Addresses(list) = entry else { unreachable!() };
                list.push(words[2].parse().unwrap());
            }
        }
    }
    Zone { records, away: vec![], unknown: vec![] }
}

impl Zone {
    fn find(&self, listen: &[&str], uri: &str) -> Found {
        search(&place(uri), &listeners(listen), |question| {
            if self.unknown.contains(question) {
                return Known::Nothing;
            }
            if self.away.contains(question) {
                return Known::Unanswered;
            }
            let nothing = match question {
                Question::Naptr(_) => &NO_NAPTR,
                Question::Srv(_) => &NO_SRV,
                Question::Addresses(_) => &NO_ADDRESSES,
            };
            Known::Records(self.records.get(question).unwrap_or(nothing))
        })
    }

    /// What is found, tier after tier, as [`Step`] prints it.
    fn steps(&self, listen: &[&str], uri: &str) -> Vec<String> {
        let found = self.find(listen, uri);
        assert!(found.complete);
        found.plan.steps().iter().map(ToString::to_string).collect()
    }

    fn asked(&self, listen: &[&str], uri: &str) -> Vec<Question> {
        self.find(listen, uri).asked.into_iter().collect()
    }
}

fn listeners(listen: &[&str]) -> Vec<Listener> {
    let listener = |text: &&str| {
        let (word, address) = text.split_once(':').unwrap();
        let transport = Transport::ALL.into_iter().find(|known| known.word() == word).unwrap();
        Listener { transport, address: address.parse().unwrap() }
    };
    listen.iter().map(listener).collect()
}

/// `host`, `host:port`, `host;transport`.
fn place(uri: &str) -> Place {
    let (rest, transport) = uri.split_once(';').map_or((uri, None), |(rest, word)| {
        (rest, Transport::ALL.into_iter().find(|known| known.word() == word))
    });
    if let Ok(ip) = rest.parse() {
        return Place { host: Host::Address(ip), port: None, transport };
    }
    if let Ok(address) = rest.parse::<SocketAddr>() {
        return Place { host: Host::Address(address.ip()), port: Some(address.port()), transport };
    }
    let (name, port) = rest.split_once(':').map_or((rest, None), |(name, port)| (name, port.parse().ok()));
    Place { host: Host::Name(name.to_owned()), port, transport }
}

static NO_NAPTR: Records = Records::Naptr(Vec::new());
static NO_SRV: Records = Records::Srv(Vec::new());
static NO_ADDRESSES: Records = Records::Addresses(Vec::new());

const BOTH: &[&str] = &["udp:10.0.0.1:5060", "tcp:10.0.0.1:5060"];
const UDP: &[&str] = &["udp:10.0.0.1:5060"];
const TCP: &[&str] = &["tcp:10.0.0.1:5060"];

fn naptr(name: &str) -> Question {
    Question::Naptr(name.to_owned())
}

fn srv(name: &str) -> Question {
    Question::Srv(name.to_owned())
}

fn addresses(name: &str) -> Question {
    Question::Addresses(name.to_owned())
}

/// RFC 3263 §4.1 and §4.2, but for the records of hosts, which it leaves to the reader.
const RFC_3263: &str = "
    example.com NAPTR 50 50 s SIPS+D2T _sips._tcp.example.com.
    example.com NAPTR 90 50 s SIP+D2T _sip._tcp.example.com.
    example.com NAPTR 100 50 s SIP+D2U _sip._udp.example.com.
    _sip._tcp.example.com SRV 0 1 5060 server1.example.com.
    _sip._tcp.example.com SRV 0 2 5060 server2.example.com.
    _sip._udp.example.com SRV 0 1 5061 server3.example.com.
    server1.example.com A 192.0.2.1
    server2.example.com A 192.0.2.2
    server3.example.com A 192.0.2.3";

/// RFC 3263 §4.1, §4.2.
#[test]
fn the_example_of_rfc_3263_gives_tcp_with_its_two_servers() {
    let zone = zone_of(RFC_3263);
    let expected = ["0 1 tcp:192.0.2.1:5060", "0 2 tcp:192.0.2.2:5060"];
    assert_eq!(zone.steps(BOTH, "example.com"), expected);
    // "If the client does not support TCP": the next record with a service that we speak.
    assert_eq!(zone.steps(UDP, "example.com"), ["0 1 udp:192.0.2.3:5061"]);
    assert_eq!(
        zone.asked(UDP, "Example.COM"),
        [naptr("example.com"), srv("_sip._udp.example.com"), addresses("server3.example.com")]
    );
}

/// RFC 3263 §4.1, §4.2.
#[test]
fn an_address_is_itself_and_asks_nothing() {
    let zone = zone_of("");
    for (uri, target) in [
        ("192.0.2.9", "0 0 udp:192.0.2.9:5060"),
        ("192.0.2.9;tcp", "0 0 tcp:192.0.2.9:5060"),
        ("192.0.2.9:5070;udp", "0 0 udp:192.0.2.9:5070"),
        ("[2001:db8::9]:5070", "0 0 udp:[2001:db8::9]:5070"),
    ] {
        assert_eq!(zone.steps(BOTH, uri), [target]);
        assert_eq!(zone.asked(BOTH, uri), []);
    }
}

/// RFC 3263 §4.1, §4.2.
#[test]
fn a_name_with_a_port_is_its_addresses_there() {
    let zone = zone_of(
        "pbx.example A 192.0.2.1\npbx.example A 192.0.2.2\n_sip._udp.pbx.example SRV 0 0 9 no.example.",
    );
    assert_eq!(zone.steps(BOTH, "pbx.example:5080"), ["0 0 udp:192.0.2.1:5080 udp:192.0.2.2:5080"]);
    assert_eq!(zone.steps(BOTH, "pbx.example:5080;tcp"), ["0 0 tcp:192.0.2.1:5080 tcp:192.0.2.2:5080"]);
    assert_eq!(zone.asked(BOTH, "pbx.example:5080"), [addresses("pbx.example")]);
}

/// RFC 3263 §4.1, §4.2.
#[test]
fn a_name_with_a_transport_skips_naptr() {
    let zone = zone_of(RFC_3263);
    assert_eq!(zone.steps(BOTH, "example.com;udp"), ["0 1 udp:192.0.2.3:5061"]);
    assert!(!zone.asked(BOTH, "example.com;udp").contains(&naptr("example.com")));
    // Without SRV: the name itself, by that transport, at its port.
    let plain = zone_of("pbx.example A 192.0.2.1");
    assert_eq!(plain.steps(BOTH, "pbx.example;tcp"), ["0 0 tcp:192.0.2.1:5060"]);
}

/// RFC 3263 §4.1.
#[test]
fn without_naptr_every_transport_of_ours_is_asked_in_our_order() {
    let zone = zone_of(
        "_sip._udp.example SRV 5 0 5060 a.example.
         _sip._tcp.example SRV 1 0 5061 a.example.
         a.example A 192.0.2.1",
    );
    assert_eq!(zone.steps(BOTH, "example"), ["0 0 udp:192.0.2.1:5060", "1 0 tcp:192.0.2.1:5061"]);
    let other_way = &["tcp:10.0.0.1:5060", "udp:10.0.0.1:5060"];
    assert_eq!(zone.steps(other_way, "example"), ["0 0 tcp:192.0.2.1:5061", "1 0 udp:192.0.2.1:5060"]);
    assert_eq!(zone.steps(TCP, "example"), ["0 0 tcp:192.0.2.1:5061"]);
}

/// RFC 3263 §4.1, §4.2.
#[test]
fn without_any_srv_a_bare_name_is_called_by_udp_at_5060() {
    let zone = zone_of("pbx.example A 192.0.2.1");
    assert_eq!(zone.steps(BOTH, "pbx.example"), ["0 0 udp:192.0.2.1:5060"]);
    let all = [
        naptr("pbx.example"),
        srv("_sip._tcp.pbx.example"),
        srv("_sip._udp.pbx.example"),
        addresses("pbx.example"),
    ];
    assert_eq!(zone.asked(BOTH, "pbx.example"), all);
    let named = zone_of("a.example NAPTR 1 1 s SIP+D2T _x.b.example.\na.example A 192.0.2.1");
    assert_eq!(named.steps(BOTH, "a.example"), ["0 0 tcp:192.0.2.1:5060"], "NAPTR chose the transport");
}

/// RFC 3263 §4.1.
#[test]
fn naptr_records_that_are_not_for_us_are_passed_over() {
    for naptr in [
        "a.example NAPTR 1 1 u E2U+sip _no.example.",
        "a.example NAPTR 1 1 s SIP+D2S _no.example.",
        "a.example NAPTR 1 1 a SIP+D2U _no.example.",
        "a.example NAPTR 1 1 s SIP+D2U .",
    ] {
        let zone =
            zone_of(&format!("{naptr}\n_sip._udp.a.example SRV 0 0 5060 b.example.\nb.example A 192.0.2.1"));
        assert_eq!(zone.steps(BOTH, "a.example"), ["0 0 udp:192.0.2.1:5060"], "{naptr}");
    }
    let zone = zone_of(
        "a.example NAPTR 9 1 S sip+d2u _sip._udp.b.example.\n_sip._udp.b.example SRV 0 0 1 c.example.\nc.example A 192.0.2.1",
    );
    assert_eq!(zone.steps(BOTH, "a.example"), ["0 0 udp:192.0.2.1:1"], "in either case of letters");
}

/// RFC 3403 §4.1.
#[test]
fn preference_orders_services_of_one_order_and_a_higher_order_counts_no_more() {
    let hosts = "
        _sip._udp.example SRV 0 0 5060 u.example.
        _sip._tcp.example SRV 0 0 5060 t.example.
        u.example A 192.0.2.1
        t.example A 192.0.2.2";
    let same =
        "example NAPTR 1 20 s SIP+D2U _sip._udp.example.\nexample NAPTR 1 10 s SIP+D2T _sip._tcp.example.";
    let steps = zone_of(&format!("{same}{hosts}")).steps(BOTH, "example");
    assert_eq!(steps, ["0 0 tcp:192.0.2.2:5060", "1 0 udp:192.0.2.1:5060"]);
    let higher =
        "example NAPTR 2 10 s SIP+D2U _sip._udp.example.\nexample NAPTR 1 10 s SIP+D2T _sip._tcp.example.";
    assert_eq!(zone_of(&format!("{higher}{hosts}")).steps(BOTH, "example"), ["0 0 tcp:192.0.2.2:5060"]);
}

/// RFC 2782.
#[test]
fn the_example_of_rfc_2782_goes_by_priority_and_keeps_the_weights() {
    let zone = zone_of(
        "_sip._tcp.example SRV 0 1 9 old-slow-box.example.
         _sip._tcp.example SRV 0 3 9 new-fast-box.example.
         _sip._tcp.example SRV 1 0 9 sysadmins-box.example.
         _sip._tcp.example SRV 1 0 9 server.example.
         server.example A 172.30.79.10
         old-slow-box.example A 172.30.79.11
         sysadmins-box.example A 172.30.79.12
         new-fast-box.example A 172.30.79.13",
    );
    let expected = [
        "0 1 tcp:172.30.79.11:9",
        "0 3 tcp:172.30.79.13:9",
        "1 0 tcp:172.30.79.12:9",
        "1 0 tcp:172.30.79.10:9",
    ];
    assert_eq!(zone.steps(TCP, "example;tcp"), expected);
}

/// RFC 2782.
#[test]
fn a_target_of_a_dot_means_no_such_service() {
    let zone = zone_of("_sip._udp.example SRV 0 0 0 .\nexample A 192.0.2.1");
    assert_eq!(zone.steps(UDP, "example"), [""; 0]);
    assert!(!zone.asked(UDP, "example").contains(&addresses("example")));
}

#[test]
fn addresses_that_no_call_could_go_to_are_passed_over() {
    let zone = zone_of(
        "a.example A 0.0.0.0
         a.example A 255.255.255.255
         a.example A 224.0.0.1
         a.example A 10.0.0.1
         a.example AAAA ::
         a.example AAAA ff02::1
         a.example AAAA 2001:db8::1
         a.example AAAA ::ffff:192.0.2.1",
    );
    assert_eq!(
        zone.steps(BOTH, "a.example:5060"),
        ["0 0 udp:192.0.2.1:5060"],
        "no IPv6 listener; not ourselves"
    );
    let six = &["udp:[2001:db8::99]:5060", "udp:10.0.0.1:5060"];
    let both = ["0 0 udp:[2001:db8::1]:5060 udp:192.0.2.1:5060"];
    assert_eq!(zone.steps(six, "a.example:5060"), both, "the family of our first listener first");
    assert_eq!(zone.steps(TCP, "a.example:5060"), [""; 0], "no listener of the transport");
}

#[test]
fn what_was_not_asked_yet_is_asked_and_nothing_is_concluded_from_it() {
    let mut zone = zone_of(RFC_3263);
    zone.unknown.push(naptr("example.com"));
    let found = zone.find(BOTH, "example.com");
    assert!(!found.complete && found.plan.is_empty());
    assert_eq!(zone.asked(BOTH, "example.com"), [naptr("example.com")]);
    zone.unknown = vec![srv("_sip._tcp.example.com")];
    assert!(!zone.find(BOTH, "example.com").complete);
    assert!(!zone.asked(BOTH, "example.com").contains(&addresses("example.com")));
    zone.unknown = vec![addresses("server2.example.com")];
    assert!(!zone.find(BOTH, "example.com").complete);
}

#[test]
fn a_question_that_dns_does_not_answer_costs_no_more_than_itself() {
    let mut zone = zone_of(RFC_3263);
    zone.away = vec![naptr("example.com")];
    let found: Vec<String> = zone.steps(BOTH, "example.com");
    assert_eq!(found[0], "0 1 udp:192.0.2.3:5061", "as without NAPTR");
    zone.away = vec![addresses("server1.example.com")];
    assert_eq!(zone.steps(BOTH, "example.com"), ["0 2 tcp:192.0.2.2:5060"]);
    // But a name whose SRV is not answered is not taken for one that has none.
    let mut pbx = zone_of("pbx.example A 192.0.2.1");
    pbx.away = vec![srv("_sip._udp.pbx.example")];
    assert_eq!(pbx.steps(UDP, "pbx.example"), [""; 0]);
}

const WITH_TLS: &[&str] = &["udp:10.0.0.1:5060", "tcp:10.0.0.1:5060", "tls:10.0.0.1:5061"];

#[test]
fn with_tls_the_example_of_rfc_3263_leads_to_it() {
    let zone = zone_of(&format!("{RFC_3263}\n_sips._tcp.example.com SRV 0 1 5071 server1.example.com."));
    assert_eq!(zone.steps(WITH_TLS, "example.com"), ["0 1 tls:192.0.2.1:5071"]);
    assert_eq!(zone.steps(WITH_TLS, "example.com;tls"), ["0 1 tls:192.0.2.1:5071"]);
    assert_eq!(zone.asked(WITH_TLS, "example.com;tls")[0], srv("_sips._tcp.example.com"));
}

#[test]
fn a_name_by_tls_without_srv_is_called_at_5061() {
    let zone = zone_of("trunk.example A 192.0.2.7");
    assert_eq!(zone.steps(WITH_TLS, "trunk.example;tls"), ["0 0 tls:192.0.2.7:5061"]);
    assert_eq!(zone.steps(WITH_TLS, "trunk.example:5071;tls"), ["0 0 tls:192.0.2.7:5071"]);
    assert_eq!(zone.steps(WITH_TLS, "192.0.2.7;tls"), ["0 0 tls:192.0.2.7:5061"]);
}
