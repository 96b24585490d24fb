#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;

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
