#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use sip_gateway::locate::{Host, Place, Target};
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
fn a_peer_without_party_signals_is_told_how_to_have_them() {
    let remarks = load(&CONTRACT.replace("party_signals = \"verified\"", "")).unwrap().remarks;
    let of_peer = |peer: &str| {
        let begins = format!("peer \"{peer}\" has party_signals");
        remarks.iter().find(|remark| remark.starts_with(&begins)).cloned().unwrap_or_default()
    };
    assert!(of_peer("pbx").contains("check --live --peer pbx"), "{remarks:?}");
    let carrier = of_peer("carrier");
    assert!(carrier.contains("ask carrier's operator for that in writing"), "{carrier}");
    assert!(!carrier.contains("check --live"), "{carrier}");
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
        ("party_signals = \"verified\"", "trust_identity = \"yes\"", "peers[0].trust_identity"),
        (
            "party_signals = \"verified\"",
            "numbers = [\"+1860742*\", \"7427331\"]",
            "peers[0].numbers[1]: \"7427331\": a full number begins with '+'",
        ),
        (
            "uri = \"sip:127.0.0.3:5060\"",
            "uri = \"sip:127.0.0.3:5060\"\nnumbers = [\"+18607427331\"]",
            "peers[1].numbers: they are the district's numbers; give them at a peer with side = \"district\"",
        ),
        ("ports = \"20000-29999\"", "ports = \"20000\"", "media.ports"),
        ("preamble = \"memory\"", "preamble = \"repeat\"", "not available yet"),
        ("timezone = \"America/New_York\"", "timezone = \"Mars/Olympus\"", "node.timezone"),
        ("retention = \"RT-CONSENT-REC\"", "", "lines[1].retention: missing"),
        ("database = \"sqlite:data/earmark.db\"", "database = \"postgres://db\"", "storage.database"),
        ("udp:127.0.0.1:5060", "sctp:127.0.0.1:5060", "sip.listen[0]: unknown transport"),
        ("private_key = \"tls/key.pem\"", "key = \"tls/key.pem\"", "sip.tls.key"),
        (
            "sip:127.0.0.3:5060",
            "sip:127.0.0.3;transport=tls",
            "peers[1].uri: a peer by TLS, and no tls: listener",
        ),
        ("sip:127.0.0.3:5060", "sips:127.0.0.3;transport=udp", "peers[1].uri"),
        (
            "uri = \"sip:127.0.0.3:5060\"",
            "uri = \"sip:127.0.0.3:5060\"\nca_file = \"ca.pem\"",
            "peers[1].ca_file: its uri is not by TLS",
        ),
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
        ("max_calls = 2000", "min_se_s = 89", "sip.min_se_s: 89 s is below what RFC 4028 allows"),
        ("max_calls = 2000", "session_expires_s = 86401", "sip.session_expires_s: 86401 is too much"),
        (
            "max_calls = 2000",
            "session_expires_s = 300\nmin_se_s = 600",
            "sip.session_expires_s: 300 s is below",
        ),
        ("max_calls = 2000", "dns = [\"dns.example\"]", "sip.dns[0]"),
        ("max_calls = 2000", "routes = { public = [\"pbx\"] }", "sip.routes.public[0]"),
        ("max_calls = 2000", "routes = { urgent = [] }", "sip.routes.urgent"),
        ("max_calls = 2000", "requests_per_s = 0", "sip.requests_per_s: nothing could"),
    ];
    for (from, to, expected) in cases {
        let message = refused(from, to);
        assert!(message.starts_with("/etc/earmark/earmark.toml"), "{message}");
        assert!(message.contains(expected), "{message:?} should contain {expected:?}");
        assert!(message.contains("; "), "{message:?} should say how to mend it");
    }
}

#[test]
fn the_district_is_trusted_with_identities_unless_said_otherwise() {
    let trusts = |text: &str| {
        load(text).unwrap().gateway.peers.iter().map(|peer| peer.trusts_identity).collect::<Vec<_>>()
    };
    assert_eq!(trusts(CONTRACT), [true, false]);
    let uri = "uri = \"sip:127.0.0.3:5060\"";
    assert_eq!(trusts(&CONTRACT.replace(uri, &format!("{uri}\ntrust_identity = true"))), [true, true]);
    let numbers =
        "party_signals = \"verified\"\nnumbers = [\"+1860742*\", \"+18605550177\"]\ntrust_identity = false";
    let text = CONTRACT.replace("party_signals = \"verified\"", numbers);
    assert_eq!((trusts(&text), load(&text).unwrap().own_numbers.len()), (vec![false, false], 2));
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
fn sessions_last_half_an_hour_unless_said_otherwise_and_0_asks_for_no_timer() {
    let timer = |more: &str| {
        let text = CONTRACT.replace("max_calls = 2000", &format!("max_calls = 2000\n{more}"));
        let timer = load(&text).unwrap().gateway.session_timer;
        (timer.expires_s, timer.min_s)
    };
    assert_eq!(timer(""), (1_800, 90));
    assert_eq!(timer("session_expires_s = 600\nmin_se_s = 600"), (600, 600));
    assert_eq!(timer("session_expires_s = 0"), (0, 90));
}

#[test]
fn what_a_peer_may_begin_is_judged() {
    let carrier = "uri = \"sip:127.0.0.3:5060\"";
    let with = |keys: &str| CONTRACT.replace(carrier, &format!("{carrier}\n{keys}"));
    let peer = load(&with("max_calls = 30\ncalls_per_minute = 60")).unwrap().gateway.peers.remove(1);
    assert_eq!(peer.allowance.max_calls, Some(30));
    assert_eq!(peer.allowance.calls_per_minute.map(std::num::NonZeroU32::get), Some(60));
    assert_eq!(peer.allowance.refused, None);
    let keys = "refuse_destinations = [\"international\", \"premium\"]\nallow_destinations = [\"+44\"]";
    let refused = load(&with(keys)).unwrap().gateway.peers.remove(1).allowance.refused.unwrap();
    for (user, is_refused) in
        [("+33123456789", true), ("9011442071838750", false), ("919005550123", true), ("98605550123", false)]
    {
        assert_eq!(refused.refuse(user), is_refused, "{user}");
    }
    for (keys, expected) in [
        ("max_calls = 0", "peers[1].max_calls: no ordinary call"),
        ("max_calls = 2001", "peers[1].max_calls: 2001 is more than sip.max_calls (2000)"),
        ("calls_per_minute = 0", "peers[1].calls_per_minute: no ordinary call"),
        ("refuse_destinations = [\"+44\", \"abroad\"]", "peers[1].refuse_destinations[1]: \"abroad\" is no"),
        ("allow_destinations = [\"+44\"]", "peers[1].allow_destinations: excepts from refuse_destinations"),
    ] {
        let message = load(&with(keys)).unwrap_err().to_string();
        assert!(message.starts_with(&format!("/etc/earmark/earmark.toml: {expected}")), "{message}");
        assert!(message.contains("; "), "{message:?} should say how to mend it");
    }
}

#[test]
fn a_source_may_send_as_many_requests_a_second_as_there_may_be_calls() {
    let most = |more: &str| {
        let text = CONTRACT.replace("max_calls = 2000", more);
        load(&text).unwrap().gateway.limits.requests_per_s.unwrap().get()
    };
    assert_eq!(most("max_calls = 2000"), 2000);
    assert_eq!(most("max_calls = 50"), 100);
    assert_eq!(most("max_calls = 2000\nrequests_per_s = 20"), 20);
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
        (peer.place.host_port(), peer.place, peer.allow, peer.ping_s)
    };
    let name = |text: &str| Host::Name(text.to_owned());
    for (uri, host, port, transport, sent) in [
        ("sip:Trunk.Example.NET", name("trunk.example.net"), None, None, "trunk.example.net"),
        ("sip:pbx:5070", name("pbx"), Some(5070), None, "pbx:5070"),
        ("sip:a-1.example.;transport=tcp", name("a-1.example"), None, Some(Transport::Tcp), "a-1.example"),
    ] {
        let place = Place { host, port, transport };
        assert_eq!(at(uri), (sent.to_owned(), place, vec![], Some(30)), "{uri}");
    }
    let ip = "2001:db8::1".parse().unwrap();
    let place = Place { host: Host::Address(ip), port: None, transport: None };
    for uri in ["sip:[2001:db8::1]", "sip:2001:db8::1"] {
        assert_eq!(at(uri), ("[2001:db8::1]".to_owned(), place.clone(), vec![(ip, 128)], None));
    }
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

/// The example with a TLS listener, its certificates in a folder of the test's.
struct Tls {
    folder: tempfile::TempDir,
}

impl Tls {
    fn new() -> Self {
        let tls = Self { folder: tempfile::tempdir().unwrap() };
        let (certificate, key) = issue();
        tls.write("cert.pem", &certificate, 0o644);
        tls.write("ca.pem", &certificate, 0o644);
        tls.write("key.pem", &key, 0o600);
        tls
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.folder.path().join("tls").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self, change: impl FnOnce(String) -> String) -> Result<Config, ConfigError> {
        let text = CONTRACT.replace("\"tcp:127.0.0.1:5060\"", "\"tls:127.0.0.1:5061\"");
        Config::parse(&self.folder.path().join("earmark.toml"), &change(text))
    }

    fn refused(&self) -> String {
        self.load(|text| text).unwrap().read_tls().unwrap_err().to_string()
    }
}

fn issue() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(["gw.example.org".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[test]
fn certificates_are_read_and_their_end_is_known() {
    let tls = Tls::new();
    let read = tls.load(|text| text).unwrap().read_tls().unwrap().unwrap();
    assert_eq!(read.expires_s, 67_090_118_400, "4096-01-01");
    // Without a listener nothing is read, so nothing need be there.
    let config = load(CONTRACT).unwrap();
    assert!(config.read_tls().unwrap().is_none());
    assert!(config.remarks.iter().any(|remark| remark.starts_with("[sip.tls]: there is no tls: listener")));
}

#[test]
fn each_file_that_cannot_be_used_is_named_with_its_mend() {
    let (other_certificate, other_key) = issue();
    let cases = [
        ("key.pem", other_key.as_str(), 0o600, "sip.tls.private_key", "does not belong to the certificate"),
        ("key.pem", &other_key, 0o640, "sip.tls.private_key", "chmod 600"),
        ("key.pem", "", 0o600, "sip.tls.private_key", "no private key in PEM form"),
        ("cert.pem", &other_key, 0o644, "sip.tls.certificate", "no readable certificate"),
        ("ca.pem", "not PEM", 0o644, "sip.tls.client_ca", "no readable certificate"),
        ("cert.pem", &other_certificate, 0o644, "sip.tls.private_key", "does not belong"),
    ];
    for (name, text, mode, key, problem) in cases {
        let tls = Tls::new();
        tls.write(name, text, mode);
        let message = tls.refused();
        assert!(message.contains(&format!("earmark.toml: {key}: ")), "{message}");
        assert!(message.contains(problem) && message.contains("; "), "{message}");
        assert!(message.contains(name) || key == "sip.tls.private_key", "{message}");
        let secret: String = other_key.lines().nth(1).unwrap().chars().take(16).collect();
        assert!(!message.contains(&secret), "no key in {message}");
    }
    let tls = Tls::new();
    fs::remove_file(tls.folder.path().join("tls/cert.pem")).unwrap();
    assert!(tls.refused().contains("tls/cert.pem cannot be read"));
}

#[test]
fn a_tls_listener_needs_its_table() {
    let without = |text: String| {
        let (start, end) = (text.find("[sip.tls]").unwrap(), text.find("[media]").unwrap());
        format!("{}{}", &text[..start], &text[end..])
    };
    let message = Tls::new().load(without).unwrap_err().to_string();
    assert!(message.contains("sip.tls: missing"), "{message}");
}

fn at(address: &str) -> Target {
    Target { transport: Transport::Tls, address: address.parse().unwrap() }
}

#[test]
fn peers_by_tls_have_their_port_their_name_and_their_authorities() {
    let carrier =
        |lines: &'static str| move |text: String| text.replace("uri = \"sip:127.0.0.3:5060\"", lines);
    let tls = Tls::new();
    let by_uri =
        tls.load(carrier("uri = \"sip:127.0.0.3;transport=tls\"\nca_file = \"tls/ca.pem\"")).unwrap();
    let peer = &by_uri.gateway.peers[1];
    assert_eq!(peer.place.target(), Some(at("127.0.0.3:5061")));
    assert_eq!(peer.certificate, None, "an address tells it as before");
    by_uri.read_tls().unwrap().unwrap();
    let named = "uri = \"sips:127.0.0.3:5070\"\ncertificate_name = \"sbc.example.net\"";
    let named = tls.load(carrier(named)).unwrap();
    let peer = &named.gateway.peers[1];
    assert_eq!(peer.place.target(), Some(at("127.0.0.3:5070")));
    assert_eq!(peer.certificate.as_deref(), Some("sbc.example.net"));
    // Nobody is asked for a certificate where there is no CA for it.
    let no_ca = |text: String| {
        carrier("uri = \"sips:127.0.0.3\"\ncertificate_name = \"sbc.example.net\"")(text)
            .replace("client_ca = \"tls/ca.pem\"", "")
    };
    assert_eq!(tls.load(no_ca).unwrap().gateway.peers[1].certificate, None);
    let no_file = tls.load(carrier("uri = \"sips:127.0.0.3\"\nca_file = \"tls/gone.pem\"")).unwrap();
    let message = no_file.read_tls().unwrap_err().to_string();
    assert!(message.contains("peers[1].ca_file: ") && message.contains("tls/gone.pem"), "{message}");
}

#[test]
fn peers_at_one_address_are_told_apart_by_certificate() {
    let peers = |pbx: &str, carrier: &str| {
        let line = |name: &str| match name {
            "" => String::new(),
            name => format!("\ncertificate_name = \"{name}\""),
        };
        let (pbx, carrier) = (line(pbx), line(carrier));
        Tls::new().load(move |text| {
            text.replace(
                "uri = \"sip:127.0.0.2:5060;transport=udp\"",
                &format!("uri = \"sip:127.0.0.2:5061;transport=tls\"{pbx}"),
            )
            .replace(
                "uri = \"sip:127.0.0.3:5060\"",
                &format!("uri = \"sip:127.0.0.2:5061;transport=tls\"{carrier}"),
            )
        })
    };
    assert!(peers("pbx.example.org", "sbc.example.net").is_ok());
    assert!(peers("pbx.example.org", "").is_ok());
    for same in ["", "pbx.example.org"] {
        let message = peers(same, same).unwrap_err().to_string();
        assert!(
            message.contains("peers[1].allow: overlaps") && message.contains("certificate_name"),
            "{message}"
        );
    }
}
/// The example with further keys for the carrier.
fn with_carrier_keys(keys: &str) -> String {
    let uri = "uri = \"sip:127.0.0.3:5060\"";
    CONTRACT.replace(uri, &format!("{uri}\n{keys}"))
}

#[test]
fn each_fault_of_an_account_names_its_key() {
    let account = "username = \"t\"\npassword_file = \"p\"\n";
    let cases = [
        ("username = \"t\"", "peers[1].password_file: missing"),
        ("password_file = \"p\"", "peers[1].password_file: there is no username"),
        ("register = true", "peers[1].register: there is no username"),
        ("challenge = true", "peers[1].challenge: there is no username"),
        ("username = \"\"\npassword_file = \"p\"", "peers[1].username: not a name"),
        (&format!("{account}realm = \"a\\nb\""), "peers[1].realm: not a name"),
        (&format!("{account}digest_algorithms = [\"SHA-1\"]"), "unknown algorithm \"SHA-1\""),
        (&format!("{account}digest_algorithms = []"), "peers[1].digest_algorithms: nothing could be proven"),
        (&format!("{account}register_expires_s = 600"), "peers[1].register_expires_s: nothing is registered"),
        (&format!("{account}register = true\nregister_expires_s = 59"), "59 is out of bounds"),
        ("username = \"t\"\npassword_file = \"credential:../x\"", "not the name of a credential"),
        ("username = 5\npassword_file = \"p\"", "peers[1].username"),
    ];
    for (keys, expected) in cases {
        let message = load(&with_carrier_keys(keys)).unwrap_err().to_string();
        assert!(message.starts_with("/etc/earmark/earmark.toml"), "{message}");
        assert!(message.contains(expected), "{message:?} should contain {expected:?}");
        assert!(message.contains("; "), "{message:?} should say how to mend it");
    }
}

#[test]
fn an_account_is_whole_once_its_password_is_read() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let (file, password) = (folder.path().join("earmark.toml"), folder.path().join("p"));
    std::fs::write(&password, "secret\n").unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    let keys = "username = \"t\"\npassword_file = \"p\"\nregister = true\nchallenge = true\n\
                digest_algorithms = [\"md5\", \"SHA-256\"]";
    let config = Config::parse(&file, &with_carrier_keys(keys)).unwrap();
    assert!(config.gateway.peers.iter().all(|peer| peer.account.is_none()));
    let config = config.unlocked().unwrap();
    assert!(config.gateway.peers[0].account.is_none());
    let account = config.gateway.peers[1].account.as_ref().unwrap();
    assert_eq!((account.username.as_str(), account.realm.as_deref()), ("t", None));
    assert_eq!((account.challenge.as_deref(), account.register_s), (Some("gw1"), Some(3_600)));
    assert_eq!(account.algorithms, [sip_gateway::Algorithm::Md5, sip_gateway::Algorithm::Sha256]);
    let keys = format!("{keys}\nrealm = \"district\"\nregister_expires_s = 600");
    let config = Config::parse(&file, &with_carrier_keys(&keys)).unwrap().unlocked().unwrap();
    let account = config.gateway.peers[1].account.clone().unwrap();
    assert_eq!(
        (account.realm.as_deref(), account.challenge.as_deref()),
        (Some("district"), Some("district"))
    );
    assert_eq!(account.register_s, Some(600));
    std::fs::remove_file(password).unwrap();
    let error = Config::parse(&file, &with_carrier_keys(&keys)).unwrap().unlocked().unwrap_err();
    assert!(error.to_string().contains("peers[1].password_file: there is no file"), "{error}");
}

#[test]
fn whose_wish_for_a_recording_counts_is_configured_by_name() {
    let config = load(CONTRACT).unwrap();
    let trusted: Vec<_> = config.gateway.peers.iter().map(|peer| peer.preference_trusted).collect();
    assert_eq!(trusted, [true, false]);
    assert!(!config.remarks.iter().any(|remark| remark.contains("trust_recordpref")), "{:?}", config.remarks);

    let text = CONTRACT.replace("trust_recordpref = [\"pbx\"]", "trust_recordpref = [\"pbx\", \"carrier\"]");
    let hidden = load(&text).unwrap();
    assert!(hidden.gateway.peers.iter().all(|peer| peer.preference_trusted));
    let remark = "consent.trust_recordpref[1]: carrier has party_signals = \"none\"";
    assert!(hidden.remarks.iter().any(|known| known.starts_with(remark)), "{:?}", hidden.remarks);

    let unknown = refused("trust_recordpref = [\"pbx\"]", "trust_recordpref = [\"pbx\", \"pxb\"]");
    assert!(unknown.contains("consent.trust_recordpref[1]: no peer is named \"pxb\""), "{unknown}");
}
