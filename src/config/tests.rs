#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;

use sip_gateway::locate::{Host, Place};
use sip_gateway::{PeerId, Transport};

use super::{Config, ConfigError};

const CONTRACT: &str = include_str!("../../tests/contract.toml");

fn load(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/earmark/earmark.toml"), text)
}

fn refused(from: &str, to: &str) -> String {
    assert_eq!(CONTRACT.matches(from).count(), 1, "{from} must stand once in the example");
    load(&CONTRACT.replace(from, to)).unwrap_err().to_string()
}

#[test]
fn the_contracts_example_is_accepted() {
    let config = load(CONTRACT).unwrap();
    assert_eq!(config.gateway.peers.len(), 2);
    assert_eq!(config.storage.database, "sqlite:/etc/earmark/data/earmark.db");
    assert_eq!(config.media_ports, 20000..=29999);
}

#[test]
fn each_fault_names_file_key_and_mend() {
    let cases = [
        ("drain_s = 30", "drain = 30", "node.drain"),
        ("class = \"dispatch\"", "class = \"despatch\"", "lines[0].class: unknown line class \"despatch\""),
        ("number = \"+18607427331\"", "number = \"7427331\"", "lines[0].number"),
        ("side = \"public\"", "side = \"carrier\"", "peers[1].side"),
        ("uri = \"sip:127.0.0.3:5060\"", "uri = \"127.0.0.3\"", "peers[1].uri"),
        (
            "uri = \"sip:127.0.0.3:5060\"",
            "uri = \"sip:127.0.0.2:5060\"",
            "peers[1].allow: overlaps that of peer \"pbx\"",
        ),
        ("ports = \"20000-29999\"", "ports = \"20000\"", "media.ports"),
        ("preamble = \"memory\"", "preamble = \"repeat\"", "not available yet"),
        ("timezone = \"America/New_York\"", "timezone = \"Mars/Olympus\"", "node.timezone"),
        ("retention = \"RT-CONSENT-REC\"", "", "lines[1].retention: missing"),
        ("database = \"sqlite:data/earmark.db\"", "database = \"postgres://db\"", "storage.database"),
        ("udp:127.0.0.1:5060", "tls:127.0.0.1:5061", "sip.listen[0]"),
        ("accept = \"1\"", "accept = \"2\"", "consent.decline: decline (\"2\") begins with accept"),
        ("withdraw = \"*80\"", "withdraw = \"*8e\"", "consent.withdraw: withdraw has 'e'"),
        ("attempts = 2", "attempts = 0", "consent.attempts: 0 attempts"),
        ("answer_timeout_s = 10", "answer_timeout_s = 121", "consent.answer_timeout_s: 121000 ms"),
        ("max_calls = 2000", "max_calls = \"many\"", "sip.max_calls"),
        ("sip:127.0.0.3:5060", "sip:127.0.0.300:5060", "peers[1].uri"),
        ("sip:127.0.0.3:5060", "sip:-trunk.example", "peers[1].uri"),
        ("sip:127.0.0.3:5060", "sip:trunk.example;transport=smoke", "peers[1].uri"),
        ("allow = [\"127.0.0.2/32\"]", "allow = []", "peers[0].allow: nobody"),
        ("side = \"public\"", "side = \"public\"\noptions_ping_s = 86400", "peers[1].options_ping_s"),
        ("max_calls = 2000", "dns = [\"dns.example\"]", "sip.dns[0]"),
        ("max_calls = 2000", "routes = { public = [\"pbx\"] }", "sip.routes.public[0]"),
        ("max_calls = 2000", "routes = { urgent = [] }", "sip.routes.urgent"),
    ];
    for (from, to, expected) in cases {
        let message = refused(from, to);
        assert!(message.starts_with("/etc/earmark/earmark.toml"), "{message}");
        assert!(message.contains(expected), "{message:?} should contain {expected:?}");
        assert!(message.contains("; "), "{message:?} should say how to mend it");
    }
}

#[test]
fn what_contradicts_itself_is_named_where_it_does() {
    let line = |number: &str, aliases: &str| {
        format!(
            "[[lines]]\nnumber = \"{number}\"\nname = \"Again\"\nclass = \"never\"\naliases = [{aliases}]\n"
        )
    };
    let number = |class: &str| format!("[[numbers]]\nnumber = \"+18605550199\"\nclass = \"{class}\"\n");
    let lines = load(CONTRACT).unwrap().rules.lines().len();
    let cases = [
        (line("+18607427331", ""), format!("lines[{lines}].number: +18607427331 is given twice")),
        (line("+18607427300", "\"+18607427301\", \"+18607427310\""), format!("lines[{lines}].aliases[1]: ")),
        (line("+18607427300", "\"+18607427300\""), format!("lines[{lines}].aliases[0]: ")),
        (number("student"), "numbers[1].class: +18605550199 is listed with two classes".to_owned()),
    ];
    for (more, expected) in cases {
        let message = load(&format!("{CONTRACT}\n{more}")).unwrap_err().to_string();
        assert!(message.starts_with(&format!("/etc/earmark/earmark.toml: {expected}")), "{message}");
        assert!(message.contains("; keep "), "{message:?} should say how to mend it");
    }
}

#[test]
fn broken_toml_names_the_line() {
    let message = load("[node]\nname = \n").unwrap_err().to_string();
    assert!(message.starts_with("/etc/earmark/earmark.toml:2:"), "{message}");
}

#[test]
fn a_peer_may_be_at_a_name() {
    let at = |uri: &str| {
        let config = load(&CONTRACT.replace("sip:127.0.0.3:5060", uri)).unwrap();
        let peer = config.gateway.peers.last().unwrap().clone();
        (peer.place, peer.host, peer.allow, peer.ping_s)
    };
    let name = |text: &str| Host::Name(text.to_owned());
    for (uri, host, port, transport, sent) in [
        ("sip:Trunk.Example.NET", name("trunk.example.net"), None, None, "Trunk.Example.NET"),
        ("sip:pbx:5070", name("pbx"), Some(5070), None, "pbx:5070"),
        ("sip:a-1.example.;transport=tcp", name("a-1.example"), None, Some(Transport::Tcp), "a-1.example."),
    ] {
        let place = Place { host, port, transport };
        assert_eq!(at(uri), (place, sent.to_owned(), vec![], Some(30)), "{uri}");
    }
    let ip = "2001:db8::1".parse().unwrap();
    let place = Place { host: Host::Address(ip), port: None, transport: None };
    assert_eq!(at("sip:[2001:db8::1]"), (place, "[2001:db8::1]".to_owned(), vec![(ip, 128)], None));
}

#[test]
fn pings_are_on_where_there_is_a_choice_unless_said_otherwise() {
    let second = "\n[[peers]]\nname = \"carrier-2\"\nside = \"public\"\nuri = \"sip:127.0.0.4\"\n";
    let pings = |text: String| -> Vec<Option<u32>> {
        load(&text).unwrap().gateway.peers.iter().map(|peer| peer.ping_s).collect()
    };
    assert_eq!(pings(CONTRACT.to_owned()), [None, None]);
    assert_eq!(pings(format!("{CONTRACT}{second}")), [None, Some(30), Some(30)]);
    let off = format!("{CONTRACT}{second}options_ping_s = 0\n");
    assert_eq!(pings(off), [None, Some(30), None]);
    let alone = CONTRACT.replace("side = \"public\"", "side = \"public\"\noptions_ping_s = 5");
    assert_eq!(pings(alone), [None, Some(5)]);
}

#[test]
fn routes_and_dns_servers_are_taken() {
    let text = CONTRACT.replace(
        "max_calls = 2000",
        "dns = [\"192.0.2.53\", \"[2001:db8::53]:5353\"]\nroutes = { emergency = [\"carrier\"] }",
    );
    let config = load(&text).unwrap();
    assert_eq!(config.gateway.routes.emergency, [PeerId(1)]);
    let servers = ["192.0.2.53:53", "[2001:db8::53]:5353"].map(|text| text.parse().unwrap());
    assert_eq!(config.dns, servers);
}
