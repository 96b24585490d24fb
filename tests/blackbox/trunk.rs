//! Trunks that register and authenticate: Debian's Kamailio as the carrier (registrar, and a proxy that wants
//! credentials, Service-Route and Record-Route), and a stock client that has to prove itself to the gateway.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::gateway::{CITIZEN, Gateway, NEVER, Site, eventually, text};
use crate::message::Message;
use crate::phone::Phone;
use crate::stock_clients::{Running, last, sipp};

const USER: &str = "trunk-4711";
const PASSWORD: &str = "correct-horse-battery-staple";

/// A password file beside the configuration.
fn write_password(site: &Site, mode: u32) {
    let file = site.folder().join("carrier.password");
    fs::write(&file, format!("{PASSWORD}\n")).expect("a password file");
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("its mode");
}

/// The usual configuration with more keys for one peer.
fn with_keys(site: &Site, text: &str, peer: &str, keys: &str) -> String {
    let name = format!("name = \"{peer}\"\n");
    assert_eq!(text.matches(&name).count(), 1, "{}", site.config_file().display());
    text.replace(&name, &format!("{name}username = \"{USER}\"\npassword_file = \"carrier.password\"\n{keys}"))
}

/// A gateway that registers with its carrier.
fn trunk(keys: &str) -> Site {
    let keys = format!("register = true\n{keys}");
    let site = Site::with(|site, text| with_keys(site, &text, "carrier", &keys));
    write_password(&site, 0o600);
    site
}

/// Debian's Kamailio at the carrier's address. The gateway must register, prove itself with `algorithm`, and
/// use the Service-Route; requests within calls are challenged as well.
struct Kamailio(std::process::Child);

impl Kamailio {
    fn start(site: &Site, algorithm: &str) -> Self {
        let folder = site.folder().join("kamailio");
        fs::create_dir_all(&folder).expect("a folder");
        let script = folder.join("kamailio.cfg");
        fs::write(&script, routing(site, algorithm)).expect("a routing script");
        let log = fs::File::create(folder.join("log")).expect("a log");
        let folder = folder.to_string_lossy().into_owned();
        let mut command = Command::new("/usr/sbin/kamailio");
        command
            .args(["-f", &script.to_string_lossy(), "-DD", "-E", "-m", "32", "-M", "4"])
            .args(["-Y", &folder, "-w", &folder, "-P", &format!("{folder}/pid")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0);
        Self(command.spawn().expect("kamailio (Debian package kamailio)"))
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        // It and the processes that it has forked are a group of their own.
        let group = format!("-{}", self.0.id());
        // They may have ended already.
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

fn routing(site: &Site, algorithm: &str) -> String {
    let (carrier, gateway, street) = (site.carrier(), site.gateway(), site.street());
    let (host, gateway_host) = (carrier.ip(), gateway.ip());
    format!(
        r#"#!KAMAILIO
debug=2
log_stderror=yes
children=1
disable_tcp=yes
auto_aliases=no
dns=no
rev_dns=no
listen=udp:{carrier}
mpath="/usr/lib/x86_64-linux-gnu/kamailio/modules/:/usr/lib/aarch64-linux-gnu/kamailio/modules/"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "siputils.so"
loadmodule "textops.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
modparam("auth", "algorithm", "{algorithm}")
modparam("auth", "qop", "auth")
modparam("auth", "nonce_count", 1)
request_route {{
  if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
  if (is_method("REGISTER")) {{
    if (!pv_www_authenticate("carrier.example", "{PASSWORD}", "0") || $au != "{USER}") {{
      www_challenge("carrier.example", "1");
      exit;
    }}
    append_to_reply("Service-Route: <sip:{carrier};lr>\r\n");
    save("location");
    exit;
  }}
  if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
  if (is_method("ACK")) {{
    if (has_totag() && loose_route()) {{
      if ($si == "{gateway_host}" && !is_present_hf("Proxy-Authorization")) exit;
      t_relay();
    }} else if (t_check_trans()) t_relay();
    exit;
  }}
  if ($si == "{gateway_host}") {{
    if (!pv_proxy_authenticate("carrier.example", "{PASSWORD}", "0")) {{
      proxy_challenge("carrier.example", "1");
      exit;
    }}
    consume_credentials();
  }}
  if (has_totag()) {{
    if (loose_route()) t_relay();
    else sl_send_reply("404", "Not here");
    exit;
  }}
  t_check_trans();
  record_route();
  if ($si == "{gateway_host}") {{
    if (!is_present_hf("Route")) {{ sl_send_reply("403", "Not by the Service-Route"); exit; }}
    loose_route();
    $du = "sip:{street}";
    t_relay();
    exit;
  }}
  if (!lookup("location", "sip:{USER}@{host}")) {{ sl_send_reply("404", "Not registered"); exit; }}
  t_relay();
}}
"#
    )
}

fn is_registered(gateway: &Gateway<'_>) -> bool {
    let (_, metrics) = gateway.get("/metrics");
    assert!(metrics.contains("earmark_peer_registered{peer=\"carrier\"}"), "{metrics}");
    metrics.contains("earmark_peer_registered{peer=\"carrier\"} 1\n")
}

fn until_registered(gateway: &Gateway<'_>) {
    eventually("a registration", Duration::from_secs(10), || is_registered(gateway).then_some(()));
}

/// A telephone behind the carrier.
fn street_phone(site: &Site) -> Phone {
    Phone::new(site.street(), site.carrier())
}

/// Calls both ways through a carrier that challenges with one algorithm.
fn calls_both_ways(algorithm: &str) {
    let site = trunk("");
    let _kamailio = Kamailio::start(&site, algorithm);
    let gateway = site.start_logging("trace");
    until_registered(&gateway);
    let (pbx, street) = (site.pbx_phone(), street_phone(&site));

    let outgoing = pbx.call(CITIZEN, NEVER);
    let incoming = street.incoming();
    let arrived: Message = incoming.invite();
    assert_eq!(arrived.header("Proxy-Authorization"), None, "the carrier keeps its credentials");
    assert!(arrived.header("Record-Route").is_some(), "the carrier stays in the call");
    incoming.ring();
    outgoing.progress(180);
    incoming.answer();
    outgoing.answered();
    outgoing.hold();
    incoming.resume();
    outgoing.bye();
    incoming.ended();

    // From the street: the carrier sends it to our Contact, To names the line.
    let outgoing = street.call(NEVER, CITIZEN);
    let incoming = pbx.incoming();
    assert!(incoming.invite().uri().starts_with(&format!("sip:{NEVER}@")), "{}", incoming.invite().start);
    incoming.answer();
    outgoing.answered();
    incoming.bye();
    outgoing.ended();

    let calls = site.closed_calls(2);
    assert!(calls.iter().all(|call| call["outcome"] == "answered"), "{calls:?}");
    let directions: Vec<&str> = calls.iter().map(|call| text(&call["direction"])).collect();
    assert!(directions.contains(&"inbound") && directions.contains(&"outbound"), "{directions:?}");

    let (_, metrics) = gateway.get("/metrics");
    assert_eq!(gateway.terminate(), Some(0));
    let gone = street.call(NEVER, CITIZEN);
    assert_eq!(gone.final_status(), 404, "the registration ended with the service");
    let log = site.log();
    assert!(log.contains("registered"), "{log}");
    for secret in [USER, PASSWORD, "nonce", "cnonce", "response="] {
        for (name, text) in [("log", &log), ("metrics", &metrics)] {
            assert_eq!(text.lines().find(|line| line.contains(secret)), None, "`{secret}` in the {name}");
        }
    }
}

#[test]
fn calls_through_a_carrier_that_challenges_with_md5() {
    calls_both_ways("MD5");
}

#[test]
fn calls_through_a_carrier_that_challenges_with_sha_256() {
    calls_both_ways("SHA-256");
}

#[test]
fn a_wrong_password_registers_nothing_and_fails_the_call() {
    let site = trunk("");
    fs::write(site.folder().join("carrier.password"), "wrong\n").expect("another password");
    let _kamailio = Kamailio::start(&site, "SHA-256");
    let gateway = site.start();
    let refused = "the peer refuses our credentials";
    eventually("the refusal in the log", Duration::from_secs(10), || {
        site.log().contains(refused).then_some(())
    });
    assert!(!is_registered(&gateway));
    let pbx = site.pbx_phone();
    assert_eq!(pbx.call(CITIZEN, NEVER).final_status(), 502);
    assert_eq!(site.closed_call()["final_status"], 502);
}

#[test]
fn an_account_may_exclude_an_algorithm_that_the_carrier_wants() {
    let site = trunk("digest_algorithms = [\"SHA-512-256\", \"SHA-256\"]\n");
    let _kamailio = Kamailio::start(&site, "MD5");
    let gateway = site.start();
    let refused = "not registered";
    eventually("the failure in the log", Duration::from_secs(10), || {
        site.log().contains(refused).then_some(())
    });
    assert!(!is_registered(&gateway));
}

/// SIPp's own digest (MD5 alone) against the gateway's challenges.
const PROVING_UAC: &str = r#"<?xml version="1.0"?>
<scenario name="proving">
  <send retrans="500"><![CDATA[
INVITE sip:[service]@[remote_ip] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
From: <sip:7300@[local_ip]>;tag=[call_number]
To: <sip:[service]@[remote_ip]>
Call-ID: [call_id]
CSeq: 1 INVITE
Contact: <sip:7300@[local_ip]:[local_port]>
Max-Forwards: 70
Content-Length: 0

]]></send>
  <recv response="401" auth="true"/>
  <send><![CDATA[
ACK sip:[service]@[remote_ip] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch-2]
From: <sip:7300@[local_ip]>;tag=[call_number]
To: <sip:[service]@[remote_ip]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 1 ACK
Max-Forwards: 70
Content-Length: 0

]]></send>
  <send retrans="500"><![CDATA[
INVITE sip:[service]@[remote_ip] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
From: <sip:7300@[local_ip]>;tag=[call_number]
To: <sip:[service]@[remote_ip]>
Call-ID: [call_id]
CSeq: 2 INVITE
Contact: <sip:7300@[local_ip]:[local_port]>
Max-Forwards: 70
[authentication username=USER password=PASSWORD]
Content-Type: application/sdp
Content-Length: [len]

v=0
o=user 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [local_ip]
t=0 0
m=audio 6000 RTP/AVP 0
]]></send>
  <recv response="100" optional="true"/>
  <recv response="180" optional="true"/>
  <recv response="200" rtd="true"/>
  <send><![CDATA[
ACK sip:[service]@[remote_ip] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
From: <sip:7300@[local_ip]>;tag=[call_number]
To: <sip:[service]@[remote_ip]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 2 ACK
Max-Forwards: 70
Content-Length: 0

]]></send>
  <send retrans="500"><![CDATA[
BYE sip:[service]@[remote_ip] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
From: <sip:7300@[local_ip]>;tag=[call_number]
To: <sip:[service]@[remote_ip]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 3 BYE
Max-Forwards: 70
Content-Length: 0

]]></send>
  <recv response="200"/>
</scenario>
"#;

/// SIPp at the PBX's address, which answers challenges with a password.
fn prover(site: &Site, password: &str, count: &str) -> Command {
    let scenario = PROVING_UAC.replace("USER", USER).replace("PASSWORD", password);
    fs::write(site.folder().join("proving.xml"), scenario).expect("a scenario");
    let target = site.gateway().to_string();
    let statistics = ["-trace_stat", "-fd", "1", "-stf", "proving.csv"];
    let call = ["-sf", "proving.xml", &target, "-s", "5550123", "-m", count, "-r", "20", "-timeout", "30"];
    sipp(site.folder(), site.pbx(), &[&call[..], &statistics].concat())
}

fn strict() -> Site {
    let keys = "challenge = true\nrealm = \"district\"\ndigest_algorithms = [\"MD5\"]\n";
    let site = Site::with(|site, text| with_keys(site, &text, "pbx", keys));
    write_password(&site, 0o600);
    site
}

fn counted(gateway: &Gateway<'_>, metric: &str, value: u32) -> bool {
    gateway.get("/metrics").1.contains(&format!("earmark_{metric}_total {value}\n"))
}

#[test]
fn a_stock_client_proves_itself_to_the_gateway() {
    let site = strict();
    let gateway = site.start();
    let uas = sipp(site.folder(), site.carrier(), &["-sn", "uas"]).spawn();
    let _uas = Running(uas.expect("sipp (Debian package sip-tester)"));
    let uac = prover(&site, PASSWORD, "20").status().expect("sipp runs");
    assert!(uac.success(), "{uac}");
    let statistics = fs::read_to_string(site.folder().join("proving.csv")).unwrap_or_default();
    assert_eq!(last(&statistics, "SuccessfulCall(C)"), "20");
    let calls = site.closed_calls(20);
    assert!(calls.iter().all(|call| call["outcome"] == "answered"));
    let challenged = || counted(&gateway, "sip_challenged", 20).then_some(());
    eventually("twenty challenges", Duration::from_secs(10), challenged);
    assert!(counted(&gateway, "sip_credentials_refused", 0));
}

#[test]
fn a_stock_client_with_another_password_places_no_call() {
    let site = strict();
    let gateway = site.start();
    let _uac = Running(prover(&site, "wrong", "1").spawn().expect("sipp runs"));
    let refused = || (!counted(&gateway, "sip_credentials_refused", 0)).then_some(());
    eventually("a refusal", Duration::from_secs(10), refused);
    assert_eq!(site.calls().len(), 0, "what is challenged is no call");
}

#[test]
fn nobody_is_challenged_on_the_way_to_911() {
    let site = strict();
    let _gateway = site.start();
    let (pbx, carrier) = (site.pbx_phone(), site.carrier_phone());
    assert_eq!(pbx.call("5550123", NEVER).final_status(), 401);
    let outgoing = pbx.call("911", NEVER);
    let incoming = carrier.incoming();
    incoming.answer();
    outgoing.answered();
    outgoing.hold();
    outgoing.bye();
    incoming.ended();
}

/// Runs a command on a site whose password file is as `prepare` leaves it.
fn refused(command: &str, prepare: impl FnOnce(&Path), named: &[&str]) {
    let site = trunk("");
    prepare(&site.folder().join("carrier.password"));
    let output = site.run([command]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for word in named.iter().chain(&["earmark.toml", "peers[1].password_file"]) {
        assert!(said.contains(word), "`{word}` is named: {said}");
    }
    assert!(!said.contains("staple"), "{said}");
}

#[test]
fn a_password_that_cannot_be_had_names_file_key_and_mend() {
    for command in ["check", "serve"] {
        refused(command, |file| fs::remove_file(file).expect("the file"), &["there is no file", "chmod 600"]);
        let others = |file: &Path| {
            fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("its mode");
        };
        refused(command, others, &["can be read by others (mode 644)", "chmod 600"]);
        refused(command, |file| fs::write(file, "a\nb\n").expect("the file"), &["one line"]);
    }
}

#[test]
fn only_the_service_needs_the_password() {
    let site = trunk("");
    site.start();
    fs::remove_file(site.folder().join("carrier.password")).expect("the file");
    assert!(site.run(["calls", "list"]).status.success());
}

#[test]
fn a_systemd_credential_is_a_password_file() {
    let site = Site::with(|site, text| {
        with_keys(site, &text, "carrier", "")
            .replace("\"carrier.password\"", "\"credential:carrier.password\"")
    });
    write_password(&site, 0o440);
    let output = site.run(["check"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("only the service can read it"), "{said}");
    let output = site.run(["serve"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("LoadCredential="));
    let mut command = site.earmark(["check"]);
    let output = command.env("CREDENTIALS_DIRECTORY", site.folder()).output().expect("earmark runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("only the service"));
}
