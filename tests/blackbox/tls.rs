//! TLS: calls on both sides of it, certificates exchanged under a call, and those who are not let in.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::dispatch_line::talk;
use crate::gateway::{CITIZEN, DISPATCH, Gateway, Site, eventually};
use crate::linphone::{self, Linphone};
use crate::phone::Phone;
use crate::sound::{self, LADDER_A_HZ, LADDER_B_HZ};
use crate::stock_clients::Baresip;
use crate::wire::{Authority, Issued, connect};

/// The PBX's name, and somebody else's.
const PBX: &str = "pbx.example.org";
const OTHER: &str = "other.example.org";

/// The PBX by mutual TLS, the carrier by UDP.
struct Secured {
    site: Site,
    ca: Authority,
}

impl Secured {
    fn new() -> Self {
        let secured = Self { site: Site::new(), ca: Authority::new() };
        let (site, ca) = (&secured.site, &secured.ca);
        fs::create_dir(site.folder().join("tls")).expect("a folder");
        secured.write("ca.pem", &ca.pem);
        secured.show(&secured.gateway_certificate(2096));
        let text = site.usual();
        let text = text
            .replace(&format!("\"tcp:{}\"", site.gateway()), &format!("\"tls:{}\"", secured.gateway()))
            .replace(
                "[media]",
                "[sip.tls]\ncertificate = \"tls/cert.pem\"\nprivate_key = \"tls/key.pem\"\n\
                 client_ca = \"tls/ca.pem\"\n\n[media]",
            )
            .replace(
                &format!("uri = \"sip:{};transport=udp\"", site.pbx()),
                &format!(
                    "uri = \"sip:{};transport=tls\"\nca_file = \"tls/ca.pem\"\ncertificate_name = \"{PBX}\"",
                    secured.pbx()
                ),
            );
        site.configure(&text);
        secured
    }

    fn gateway(&self) -> SocketAddr {
        SocketAddr::new(self.site.gateway().ip(), 5_061)
    }

    fn pbx(&self) -> SocketAddr {
        SocketAddr::new(self.site.pbx().ip(), 5_061)
    }

    fn gateway_certificate(&self, until: i32) -> Issued {
        self.ca.issue(&[&self.gateway().ip().to_string(), "gateway.example.org"], until)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.file(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.site.folder().join("tls").join(name)
    }

    /// Puts a certificate of the gateway's into its files.
    fn show(&self, issued: &Issued) {
        self.write("cert.pem", &issued.certificate);
        self.write("key.pem", &issued.key);
    }

    fn pbx_phone(&self) -> Phone {
        Phone::by_tls(self.pbx(), self.gateway(), &self.ca, &self.ca.issue(&[PBX], 2096))
    }

    /// Whether a stream from an address with this certificate still stands once it has been judged.
    fn is_let_in(&self, from: SocketAddr, shown: &Issued) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let connector = shown.connector(&self.ca);
            let Ok(mut stream) = connect(&connector, from, self.gateway()).await else { return false };
            if stream.write_all(b"\r\n\r\n").await.is_err() || stream.flush().await.is_err() {
                return false;
            }
            let mut pong = [0; 2];
            stream.read_exact(&mut pong).await.is_ok_and(|_| &pong == b"\r\n")
        })
    }
}

fn expiry(gateway: &Gateway<'_>) -> Option<i64> {
    let (_, metrics) = gateway.get("/metrics");
    let line =
        metrics.lines().find(|line| line.starts_with("earmark_certificate_expiry_timestamp_seconds"))?;
    line.split(' ').nth(1)?.parse().ok()
}

#[test]
fn a_call_goes_on_while_the_certificate_is_exchanged() {
    let secured = Secured::new();
    let site = &secured.site;
    let gateway = site.start();
    assert!(gateway.ready.contains(&format!("tls:{}", secured.gateway())), "{}", gateway.ready);
    assert_eq!(expiry(&gateway), Some(3_976_214_400), "2096-01-01");
    let (carrier, pbx) = (site.carrier_phone(), secured.pbx_phone());
    // From UDP to TLS, on a stream that the gateway opens.
    let (outgoing, incoming) = talk(&carrier, &pbx, DISPATCH, CITIZEN);
    let invite = incoming.invite();
    assert!(invite.header("Via").is_some_and(|via| via.starts_with("SIP/2.0/TLS ")), "{invite:?}");
    assert!(invite.contact().is_some_and(|uri| uri.ends_with(";transport=tls")), "{invite:?}");
    std::thread::sleep(Duration::from_secs(1));

    // A file that cannot be used changes nothing; one that can is in force from then on.
    let other_key = secured.ca.issue(&[OTHER], 2096).key;
    secured.write("key.pem", &other_key);
    gateway.hang_up();
    eventually("an error that names the file", Duration::from_secs(10), || {
        let log = site.log();
        log.lines().find(|line| line.contains("ERROR") && line.contains("tls/key.pem")).map(str::to_owned)
    });
    assert_eq!(expiry(&gateway), Some(3_976_214_400));
    let own = secured.ca.issue(&[PBX], 2096);
    assert!(secured.is_let_in(secured.pbx(), &own), "the old certificate is in force");
    secured.show(&secured.gateway_certificate(2095));
    gateway.hang_up();
    eventually("the new certificate", Duration::from_secs(10), || {
        (expiry(&gateway) == Some(3_944_678_400)).then_some(())
    });
    assert!(secured.is_let_in(secured.pbx(), &own));

    std::thread::sleep(Duration::from_secs(1));
    outgoing.hold();
    outgoing.resume();
    incoming.bye();
    outgoing.ended();
    assert_eq!(pbx.accepted_streams(), 1, "the call had one stream from beginning to end");
    for (call, base) in [(&incoming, LADDER_A_HZ), (&outgoing, LADDER_B_HZ)] {
        let heard = sound::find_ladder(&call.media().heard(None), base);
        assert!(heard.seconds() > 1.5, "{heard:?}");
    }
    let call = site.closed_call();
    assert_eq!((&call["outcome"], &call["ended_by"]), (&"answered".into(), &"callee".into()), "{call}");
    let secret: String = other_key.lines().nth(1).unwrap_or_default().chars().take(16).collect();
    assert!(!site.log().contains(&secret), "no key in the log");
}

#[test]
fn a_call_from_tls_to_udp() {
    let secured = Secured::new();
    let site = &secured.site;
    let _gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), secured.pbx_phone());
    let (outgoing, incoming) = talk(&pbx, &carrier, "7425555", DISPATCH);
    let invite = incoming.invite();
    assert!(
        !String::from_utf8_lossy(&invite.to_bytes()).contains(&site.pbx().ip().to_string()),
        "{invite:?}"
    );
    std::thread::sleep(Duration::from_secs(1));
    incoming.bye();
    outgoing.ended();
    assert_eq!(pbx.accepted_streams(), 0, "the BYE came on the telephone's own stream");
    assert_eq!(site.closed_call()["direction"], "outbound");
}

#[test]
fn nobody_comes_in_without_the_certificate_for_his_address() {
    let secured = Secured::new();
    let mut gateway = secured.site.start();
    let (ca, elsewhere) = (&secured.ca, Authority::new());
    let stranger = secured.site.stranger();
    let cases = [
        ("the PBX", secured.pbx(), ca.issue(&[PBX], 2096), true),
        ("another name", secured.pbx(), ca.issue(&[OTHER], 2096), false),
        ("a wildcard", secured.pbx(), ca.issue(&["*.example.org"], 2096), false),
        ("expired", secured.pbx(), ca.issue(&[PBX], 2001), false),
        ("another CA", secured.pbx(), elsewhere.issue(&[PBX], 2096), false),
        ("a stranger with the PBX's certificate", stranger, ca.issue(&[PBX], 2096), false),
    ];
    for (who, from, shown, let_in) in cases {
        assert_eq!(secured.is_let_in(from, &shown), let_in, "{who}");
        gateway.lives();
    }
    // Nor by a datagram from the PBX's address.
    let datagrams = Phone::new(secured.site.pbx(), secured.site.gateway());
    datagrams.send_raw(b"OPTIONS sip:x SIP/2.0\r\n\r\n");
    let carrier = secured.site.carrier_phone();
    assert_eq!(carrier.options(), 200);
    assert!(secured.site.calls().is_empty());
}

#[test]
fn a_thousand_broken_handshakes_and_a_hundred_that_stall_leave_room_for_calls() {
    let secured = Secured::new();
    let site = &secured.site;
    let mut gateway = site.start();
    let hello = *b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let open = |from: SocketAddr| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(from.ip(), 0).into()).expect("an address");
        socket.connect(&secured.gateway().into()).expect("a connection");
        let mut stream = TcpStream::from(socket);
        // A stranger may be closed already.
        let _ = stream.write_all(&hello);
        stream
    };
    for _ in 0..500 {
        drop(open(secured.pbx()));
        drop(open(site.stranger()));
    }
    let stalled: Vec<TcpStream> = (0..100).map(|_| open(secured.pbx())).collect();
    let (carrier, pbx) = (site.carrier_phone(), secured.pbx_phone());
    for (caller, callee, to, from) in
        [(&pbx, &carrier, "7425555", DISPATCH), (&carrier, &pbx, DISPATCH, CITIZEN)]
    {
        let (outgoing, incoming) = talk(caller, callee, to, from);
        outgoing.bye();
        incoming.ended();
    }
    drop(stalled);
    gateway.lives();
    site.closed_calls(2);
}

#[test]
fn check_reads_the_certificates_and_warns_of_their_end() {
    let secured = Secured::new();
    let check = || secured.site.run(["check"]);
    assert!(check().status.success());
    secured.show(&secured.gateway_certificate(2001));
    let expired = check();
    let text = String::from_utf8_lossy(&expired.stdout).into_owned();
    assert!(
        expired.status.success() && text.contains("sip.tls.certificate: expired at 2001-01-01"),
        "{text}"
    );
    fs::set_permissions(secured.file("key.pem"), fs::Permissions::from_mode(0o644)).expect("its mode");
    let exposed = check();
    let text = String::from_utf8_lossy(&exposed.stderr).into_owned();
    assert_eq!(exposed.status.code(), Some(2), "{text}");
    assert!(text.contains("sip.tls.private_key") && text.contains("chmod 600"), "{text}");
    assert_eq!(secured.site.run(["serve"]).status.code(), Some(2), "nor does the service start with it");
}

/// The carrier by mutual TLS too.
fn secured_on_both_sides() -> (Secured, SocketAddr) {
    let secured = Secured::new();
    let site = &secured.site;
    let carrier = SocketAddr::new(site.carrier().ip(), 5_061);
    let text = fs::read_to_string(site.config_file()).expect("a configuration");
    // A telephone's own streams come from wherever the system lets them come from on loopback.
    let by_tls = format!(
        "uri = \"sip:{carrier};transport=tls\"\nca_file = \"tls/ca.pem\"\ncertificate_name = \"{OTHER}\"\n\
         allow = [\"{}/32\", \"127.0.0.1/32\"]",
        carrier.ip()
    );
    site.configure(&text.replace(&format!("uri = \"sip:{}\"", site.carrier()), &by_tls));
    (secured, carrier)
}

/// A TLS of another make (OpenSSL) on both sides, as server and as client.
#[test]
fn two_baresips_by_tls_hear_each_other() {
    let (secured, _) = secured_on_both_sides();
    let site = &secured.site;
    let _gateway = site.start();
    let start = |name, address, base, own: &str| {
        Baresip::start_by_tls(site, name, address, base, &secured.ca, &secured.ca.issue(&[own], 2096))
    };
    let callee = start("bob", site.pbx(), LADDER_B_HZ, PBX);
    let caller = start("alice", site.carrier(), LADDER_A_HZ, OTHER);
    caller.command("dial", &format!("sip:bob@{};transport=tls", secured.gateway()));
    let in_progress = || site.calls().into_iter().find(|call| !call["answered_at"].is_null());
    eventually("an answered call", Duration::from_secs(10), in_progress);
    std::thread::sleep(Duration::from_secs(6));
    caller.command("hangup", "");
    let call = site.closed_call();
    assert_eq!((&call["outcome"], &call["ended_by"]), (&"answered".into(), &"caller".into()), "{call}");
    for (heard_by, base) in [(&caller, LADDER_B_HZ), (&callee, LADDER_A_HZ)] {
        let found = heard_by.heard(base);
        assert!(found.seconds() > 4.0 && found.breaks == 0, "{found:?}");
    }
}

/// A third make (Mbed TLS) as client.
#[test]
fn linphone_by_tls_and_baresip_hear_each_other() {
    let (secured, carrier) = secured_on_both_sides();
    let site = &secured.site;
    let _gateway = site.start();
    let own = |name: &str| secured.ca.issue(&[name], 2096);
    let callee = Baresip::start_by_tls(site, "bob", site.pbx(), LADDER_B_HZ, &secured.ca, &own(PBX));
    let mut caller = Linphone::start_by_tls(site, "alice", carrier, &secured.ca, &own(OTHER));
    linphone::calls(site, &mut caller, &callee, &format!("sip:bob@{};transport=tls", secured.gateway()));
}
