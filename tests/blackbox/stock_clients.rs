//! Clients that nobody here wrote: SIPp and baresip, as Debian ships them.

use std::io::Write;
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::gateway::{Site, eventually};
use crate::sound::{self, LADDER_A_HZ, LADDER_B_HZ};
use crate::wire::{Authority, Issued};

/// A program that ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn sipp(folder: &Path, local: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new("sipp");
    command
        .args(["-i", &local.ip().to_string(), "-p", &local.port().to_string(), "-nostdin"])
        .args(["-trace_err", "-error_file", &format!("{}.err", arguments[1])])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Calls at 50 a second from a stock UAC to a stock UAS behind the gateway: none fails, each has its record.
struct Calls<'a> {
    /// The user part that is dialled.
    user: &'a str,
    count: usize,
    /// The caller's transport as SIPp names it: `u1` or `t1`.
    transport: &'a str,
    uas: SocketAddr,
    uac: SocketAddr,
    gateway: SocketAddr,
}

impl<'a> Calls<'a> {
    fn new(site: &Site, user: &'a str, count: usize) -> Self {
        Self { user, count, transport: "u1", uas: site.pbx(), uac: site.carrier(), gateway: site.gateway() }
    }

    fn place(&self, site: &Site) {
        let mut gateway = site.start();
        let uas = sipp(site.folder(), self.uas, &["-sn", "uas"]).spawn();
        let _uas = Running(uas.expect("sipp (Debian package sip-tester)"));
        let (target, count) = (self.gateway.to_string(), self.count.to_string());
        let call = ["-sn", "uac", &target, "-s", self.user, "-t", self.transport];
        let pace = ["-r", "50", "-m", &count, "-l", "1000", "-timeout", "90"];
        let statistics = ["-trace_stat", "-fd", "1", "-stf", "uac.csv"];
        let arguments = [&call[..], &pace, &statistics].concat();
        let uac = sipp(site.folder(), self.uac, &arguments).status().expect("sipp runs");
        let written = |file: &str| std::fs::read_to_string(site.folder().join(file)).unwrap_or_default();
        let (statistics, errors) = (written("uac.csv"), written("uac.err"));
        assert!(uac.success(), "{uac}: {errors}");
        assert_eq!(last(&statistics, "SuccessfulCall(C)"), count, "{errors}");
        assert_eq!(last(&statistics, "FailedCall(C)"), "0", "{errors}");
        gateway.lives();
        let calls = site.closed_calls(self.count);
        assert!(calls.iter().all(|call| call["outcome"] == "answered"));
        let mut ids: Vec<&str> = calls.iter().filter_map(|call| call["id"].as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), self.count, "one record a call");
    }
}

/// A column's last value in SIPp's statistics.
pub(crate) fn last<'a>(statistics: &'a str, column: &str) -> &'a str {
    let mut lines = statistics.lines();
    let at = lines.next().and_then(|head| head.split(';').position(|name| name == column));
    let line = lines.next_back().unwrap_or_default();
    at.and_then(|at| line.split(';').nth(at)).unwrap_or("missing")
}

#[test]
fn a_thousand_sipp_calls_to_a_name() {
    let site = Site::new();
    Calls::new(&site, "service", 1_000).place(&site);
}

#[test]
fn a_thousand_sipp_calls_to_a_number() {
    let site = Site::new();
    Calls::new(&site, "+18605550142", 1_000).place(&site);
}

#[test]
fn sipp_calls_over_tcp() {
    let site = Site::new();
    Calls { transport: "t1", ..Calls::new(&site, "service", 200) }.place(&site);
}

/// There is one IPv6 loopback address: the peers are told apart by their ports.
#[test]
fn sipp_calls_over_ipv6() {
    let at = |port| SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let [gateway, uas, uac] = [at(15_060), at(15_062), at(15_063)];
    let site = Site::with(|site, text| {
        text.replace(&format!(r#""udp:{0}", "tcp:{0}""#, site.gateway()), &format!(r#""udp:{gateway}""#))
            .replace(&format!("address = \"{}\"", site.gateway().ip()), "address = \"::1\"")
            .replace(&format!("sip:{}", site.pbx()), &format!("sip:{uas}"))
            .replace(&format!("{}/32", site.pbx().ip()), "::1/128")
            .replace(&format!("sip:{}", site.carrier()), &format!("sip:{uac}"))
    });
    Calls { uas, uac, gateway, ..Calls::new(&site, "service", 200) }.place(&site);
}

#[test]
fn two_baresips_hear_each_other() {
    let site = Site::new();
    let _gateway = site.start();
    let callee = Baresip::start(&site, "bob", site.pbx(), LADDER_B_HZ);
    let caller = Baresip::start(&site, "alice", site.carrier(), LADDER_A_HZ);
    caller.command("dial", &format!("sip:bob@{}", site.gateway()));
    let in_progress = || site.calls().into_iter().find(|call| !call["answered_at"].is_null());
    eventually("an answered call", Duration::from_secs(10), in_progress);
    std::thread::sleep(Duration::from_secs(6));
    caller.command("hangup", "");
    let call = site.closed_call();
    assert_eq!(call["outcome"], "answered", "{call}");
    for (heard_by, base) in [(&caller, LADDER_B_HZ), (&callee, LADDER_A_HZ)] {
        let found = heard_by.heard(base);
        assert!(found.seconds() > 4.0 && found.breaks == 0, "{}: {found:?}", heard_by.name);
    }
}

/// Debian's baresip without a sound card, speaking a ladder and writing down what it hears.
pub(crate) struct Baresip<'a> {
    site: &'a Site,
    name: &'static str,
    control: SocketAddr,
    _process: Running,
}

impl<'a> Baresip<'a> {
    pub(crate) fn start(site: &'a Site, name: &'static str, address: SocketAddr, base_hz: f64) -> Self {
        Self::start_with(site, name, address, base_hz, "", "")
    }

    /// By TLS, at the port after that of `address`, with a certificate of a CA that it also believes.
    pub(crate) fn start_by_tls(
        site: &'a Site,
        name: &'static str,
        address: SocketAddr,
        base_hz: f64,
        ca: &Authority,
        own: &Issued,
    ) -> Self {
        let write = |kind: &str, text: &str| site.write_pem(name, kind, text);
        let (own, ca) = (write("own", &format!("{}{}", own.certificate, own.key)), write("ca", &ca.pem));
        let more = format!("sip_certificate {own}\nsip_cafile {ca}\n");
        Self::start_with(site, name, address, base_hz, &more, ";transport=tls")
    }

    fn start_with(
        site: &'a Site,
        name: &'static str,
        address: SocketAddr,
        base_hz: f64,
        more: &str,
        transport: &str,
    ) -> Self {
        let folder = site.folder().join(name);
        std::fs::create_dir_all(folder.join("heard")).expect("a folder");
        sound::write_wav(&folder.join("voice.wav"), &sound::ladder(base_hz, 30.0));
        let control = SocketAddr::new(address.ip(), 4_444);
        let write = |file: &str, text: String| std::fs::write(folder.join(file), text).expect("a file");
        write("config", baresip_config(&folder, address, control) + more);
        write("contacts", String::new());
        let account = format!("<sip:{name}@{address}{transport}>");
        write("accounts", format!("{account};regint=0;answermode=auto;audio_codecs=PCMU/8000/1\n"));
        let log = std::fs::File::create(folder.join("log")).expect("a log");
        let process = Command::new("baresip")
            .arg("-f")
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("baresip (Debian package baresip-core)");
        let baresip = Self { site, name, control, _process: Running(process) };
        eventually("baresip's control port", Duration::from_secs(10), || TcpStream::connect(control).ok());
        baresip
    }

    /// A command over baresip's `ctrl_tcp`: a netstring with JSON.
    pub(crate) fn command(&self, command: &str, parameters: &str) {
        let json =
            serde_json::json!({ "command": command, "params": parameters, "token": "test" }).to_string();
        let mut stream = TcpStream::connect(self.control).expect("baresip's control port");
        stream.write_all(format!("{}:{json},", json.len()).as_bytes()).expect("baresip listens");
        // It reads only while the connection stands.
        std::thread::sleep(Duration::from_millis(200));
    }

    /// The ladder in what it decoded.
    pub(crate) fn heard(&self, base_hz: f64) -> sound::LadderFound {
        let folder = self.site.folder().join(self.name).join("heard");
        let decoded = |path: &std::path::PathBuf| path.to_string_lossy().ends_with("-dec.wav");
        let path = eventually("a dump of what was heard", Duration::from_secs(5), || {
            let files = std::fs::read_dir(&folder).ok()?.flatten().map(|entry| entry.path());
            files.into_iter().find(decoded)
        });
        eventually("the whole dump", Duration::from_secs(5), || {
            let found = sound::find_ladder(&sound::read_wav(&path)[0], base_hz);
            (found.seconds() > 4.0).then_some(found)
        })
    }
}

fn baresip_config(folder: &Path, address: SocketAddr, control: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "poll_method epoll\n\
         sip_listen {address}\n\
         net_interface {}\n\
         call_local_timeout 120\n\
         call_max_calls 4\n\
         audio_source aufile,{folder}/voice.wav\n\
         audio_player aufile,{folder}/played.wav\n\
         audio_alert aufile,/dev/null\n\
         audio_txmode poll\n\
         ausrc_srate 8000\n\
         auplay_srate 8000\n\
         ausrc_channels 1\n\
         auplay_channels 1\n\
         ausrc_format s16\n\
         auplay_format s16\n\
         auenc_format s16\n\
         audec_format s16\n\
         audio_buffer 20-160\n\
         rtp_ports 30000-30100\n\
         rtcp_mux no\n\
         jitter_buffer_delay 5-10\n\
         module_path /usr/lib/baresip/modules\n\
         module g711.so\n\
         module aufile.so\n\
         module sndfile.so\n\
         module_tmp uuid.so\n\
         module_tmp account.so\n\
         module_app contact.so\n\
         module_app menu.so\n\
         module_app ctrl_tcp.so\n\
         ctrl_tcp_listen {control}\n\
         snd_path {folder}/heard\n",
        address.ip()
    )
}
