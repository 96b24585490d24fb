//! Debian's linphone as the caller, by each transport: another stack's SIP, SDP and TLS than baresip's and SIPp's.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use crate::gateway::{Site, eventually, text};
use crate::sound::{self, LADDER_A_HZ, LADDER_B_HZ};
use crate::stock_clients::{Baresip, Running};
use crate::wire::{Authority, Issued};

/// Linphone without a sound card, speaking a ladder and writing down what it hears.
pub(crate) struct Linphone {
    folder: PathBuf,
    commands: ChildStdin,
    _process: Running,
}

impl Linphone {
    /// Takes calls at `address` by this transport, and no other.
    fn start(site: &Site, name: &str, address: SocketAddr, transport: &str) -> Self {
        Self::start_with(site, name, address, transport, "")
    }

    /// By TLS, with a certificate of a CA that it also believes.
    pub(crate) fn start_by_tls(
        site: &Site,
        name: &str,
        address: SocketAddr,
        ca: &Authority,
        own: &Issued,
    ) -> Self {
        let write = |kind: &str, text: &str| site.write_pem(name, kind, text);
        // Its Mbed TLS knows no addresses among the names of a certificate; that a CA signed it is checked.
        let more = format!(
            "verify_server_cn=0\nroot_ca={}\nclient_cert_chain={}\nclient_cert_key={}\n",
            write("ca", &ca.pem),
            write("certificate", &own.certificate),
            write("key", &own.key)
        );
        Self::start_with(site, name, address, "tls", &more)
    }

    fn start_with(site: &Site, name: &str, address: SocketAddr, transport: &str, more: &str) -> Self {
        let folder = site.folder().join(name);
        // Without this folder for its database it opens no port.
        std::fs::create_dir_all(folder.join(".local/share/linphone")).expect("a folder");
        sound::write_wav(&folder.join("voice.wav"), &sound::ladder(LADDER_A_HZ, 30.0));
        let config = folder.join("rc");
        std::fs::write(&config, configuration(name, address, transport) + more).expect("a configuration");
        let output = std::fs::File::create(folder.join("output")).expect("a file");
        let mut process = Command::new("linphonec")
            .arg("-c")
            .arg(&config)
            .args(["-d", "6", "-l"])
            .arg(folder.join("log"))
            .env("HOME", &folder)
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("linphonec (Debian package linphone-cli)");
        let commands = process.stdin.take().expect("a pipe");
        let mut linphone = Self { folder, commands, _process: Running(process) };
        // It looks for an interface that leads elsewhere than to itself before it opens a port.
        linphone.logs("SIP network reachability state is now [UP]");
        linphone.command("soundcard use files");
        linphone.command(&format!("play {}", linphone.folder.join("voice.wav").display()));
        linphone.command(&format!("record {}", linphone.folder.join("heard.wav").display()));
        linphone
    }

    /// A line for its prompt.
    pub(crate) fn command(&mut self, line: &str) {
        writeln!(self.commands, "{line}").expect("linphonec listens");
    }

    fn logs(&self, what: &str) {
        let read = |file: &str| {
            String::from_utf8_lossy(&std::fs::read(self.folder.join(file)).unwrap_or_default()).into_owned()
        };
        eventually(&format!("linphone to say `{what}`"), Duration::from_secs(20), || {
            read("log").contains(what).then_some(())
        });
    }

    /// The ladder in what it heard, once that is long enough.
    pub(crate) fn heard(&self, base_hz: f64) -> sound::LadderFound {
        let path = self.folder.join("heard.wav");
        eventually("what linphone heard", Duration::from_secs(5), || {
            let found = path.exists().then(|| sound::find_ladder(&sound::read_wav(&path)[0], base_hz))?;
            (found.seconds() > 4.0).then_some(found)
        })
    }
}

/// One transport, no video, no encryption of media, and µ-law alone, so that what is heard is written at 8 kHz.
fn configuration(name: &str, address: SocketAddr, transport: &str) -> String {
    let (ip, port) = (address.ip(), address.port());
    let of = |other: &str| if other == transport { port } else { 0 };
    let unused = ["opus/48000/2", "speex/16000/1", "speex/8000/1", "PCMA/8000/1", "G729/8000/1"];
    let codec = |(at, codec): (usize, &&str)| {
        let mut parts = codec.split('/');
        let [mime, rate, channels] = std::array::from_fn(|_| parts.next().unwrap_or_default());
        format!("[audio_codec_{at}]\nmime={mime}\nrate={rate}\nchannels={channels}\nenabled=0\n")
    };
    let codecs: String = unused.iter().enumerate().map(codec).collect();
    format!(
        "{codecs}[rtp]\nbind_address={ip}\naudio_rtp_port=30200\n\
         [net]\nmtu=1300\n\
         [video]\nenabled=0\ncapture=0\ndisplay=0\n\
         [sound]\nechocancellation=0\n\
         [sip]\nbind_address={ip}\nuse_ipv6=0\nguess_hostname=0\ncontact=\"{name}\" <sip:{name}@{ip}>\n\
         sip_port={}\nsip_tcp_port={}\nsip_tls_port={}\nmedia_encryption=none\n",
        of("udp"),
        of("tcp"),
        of("tls")
    )
}

/// Calls, lets both ends hear the other's ladder, and hangs up.
pub(crate) fn calls(site: &Site, caller: &mut Linphone, callee: &Baresip<'_>, uri: &str) {
    caller.command(&format!("call {uri}"));
    let in_progress = || site.calls().into_iter().find(|call| !call["answered_at"].is_null());
    eventually("an answered call", Duration::from_secs(15), in_progress);
    std::thread::sleep(Duration::from_secs(6));
    caller.command("terminate");
    let call = site.closed_call();
    assert_eq!((&call["outcome"], &call["ended_by"]), (&"answered".into(), &"caller".into()), "{call}");
    assert_eq!(text(&call["media"]["a"]["codec"]), "PCMU", "{call}");
    for (who, found) in [("linphone", caller.heard(LADDER_B_HZ)), ("baresip", callee.heard(LADDER_A_HZ))] {
        assert!(found.seconds() > 4.0, "{who}: {found:?}");
    }
}

#[test]
fn linphone_by_udp_and_baresip_hear_each_other() {
    let site = Site::new();
    let _gateway = site.start();
    let callee = Baresip::start(&site, "bob", site.pbx(), LADDER_B_HZ);
    let mut caller = Linphone::start(&site, "alice", site.carrier(), "udp");
    calls(&site, &mut caller, &callee, &format!("sip:bob@{}", site.gateway()));
}

#[test]
fn linphone_by_tcp_and_baresip_hear_each_other() {
    // Its own streams come from wherever the system lets them come from on loopback.
    let site = Site::with(|site, text| {
        let carrier = format!("uri = \"sip:{}\"", site.carrier());
        let allowed = format!("{carrier}\nallow = [\"{}/32\", \"127.0.0.1/32\"]", site.carrier().ip());
        text.replace(&carrier, &allowed)
    });
    let _gateway = site.start();
    let callee = Baresip::start(&site, "bob", site.pbx(), LADDER_B_HZ);
    let mut caller = Linphone::start(&site, "alice", site.carrier(), "tcp");
    calls(&site, &mut caller, &callee, &format!("sip:bob@{};transport=tcp", site.gateway()));
}
