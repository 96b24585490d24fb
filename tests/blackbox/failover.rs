//! A carrier at a name with three servers, of which the first is dead and the second refuses: found by DNS,
//! with DNS away, and by 911.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::dns::{Dns, Record};
use crate::gateway::{CONSENT, Site};
use crate::phone::Phone;

const NAME: &str = "trunk.example";

fn site() -> Site {
    Site::with(|site, text| {
        let dns = format!("max_calls = 2000\ndns = [\"{}\"]", server(site));
        text.replacen(&format!("uri = \"sip:{}\"", site.carrier()), &format!("uri = \"sip:{NAME}\""), 1)
            .replacen("max_calls = 2000", &dns, 1)
    })
}

fn server(site: &Site) -> SocketAddr {
    SocketAddr::new(site.gateway().ip(), 5353)
}

/// The zone, as the carrier would publish it.
fn serve(site: &Site) -> Dns {
    let ip = |host: u8| match site.address(host).ip() {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let service = "_sip._udp.trunk.example";
    Dns::serve(
        server(site),
        vec![
            Record::naptr(NAME, 20, "SIPS+D2T", "_sips._tcp.trunk.example"),
            Record::naptr(NAME, 50, "SIP+D2U", service),
            Record::srv(service, 30, 5060, "c.trunk.example"),
            Record::srv(service, 10, 5060, "a.trunk.example"),
            Record::srv(service, 20, 5060, "b.trunk.example"),
            Record::a("a.trunk.example", ip(11)),
            Record::a("b.trunk.example", ip(12)),
            Record::a("c.trunk.example", ip(13)),
        ],
    )
}

/// The carrier's three servers.
struct Carrier {
    /// It takes everything and says nothing.
    _dead: UdpSocket,
    busy: Phone,
    good: Phone,
}

impl Carrier {
    fn new(site: &Site) -> Self {
        Self {
            _dead: UdpSocket::bind(site.address(11)).expect("a free address"),
            busy: Phone::new(site.address(12), site.gateway()),
            good: Phone::new(site.address(13), site.gateway()),
        }
    }
}

#[test]
fn the_third_server_answers_within_five_seconds_and_then_within_one_and_a_half() {
    let site = site();
    let dns = serve(&site);
    let gateway = site.start();
    assert!(gateway.get("/metrics").1.contains("earmark_peer_up{peer=\"carrier\"} 1"));
    let (carrier, pbx) = (Carrier::new(&site), site.pbx_phone());

    let began = Instant::now();
    let outgoing = pbx.call("7425555", CONSENT);
    carrier.busy.incoming().reject(503, "Service Unavailable");
    let incoming = carrier.good.incoming();
    assert!(incoming.invite().uri().ends_with("@trunk.example"), "{}", incoming.invite().uri());
    incoming.answer();
    outgoing.answered();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    outgoing.bye();
    incoming.ended();

    let began = Instant::now();
    let outgoing = pbx.call("7425556", CONSENT);
    let incoming = carrier.good.incoming();
    incoming.answer();
    outgoing.answered();
    assert!(began.elapsed() < Duration::from_millis(1_500), "{:?}", began.elapsed());
    assert!(carrier.busy.is_idle(), "who refused is not asked again at once");
    incoming.bye();
    outgoing.ended();

    // A call from a server that was found is the carrier's.
    let inward = carrier.busy.call(CONSENT.trim_start_matches('+'), "+18605550123");
    pbx.incoming().reject(486, "Busy Here");
    assert_eq!(inward.final_status(), 486);
    assert!(dns.asked() >= 5, "NAPTR, SRV and addresses: {}", dns.asked());
    site.closed_calls(3);
}

#[test]
fn an_emergency_call_reaches_the_third_server_within_four_seconds() {
    let site = site();
    let _dns = serve(&site);
    let _gateway = site.start();
    let (carrier, pbx) = (Carrier::new(&site), site.pbx_phone());
    let began = Instant::now();
    let outgoing = pbx.call("911", CONSENT);
    carrier.busy.incoming().reject(503, "Service Unavailable");
    let incoming = carrier.good.incoming();
    assert!(incoming.invite().uri().starts_with("sip:911@"));
    incoming.answer();
    outgoing.answered();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    outgoing.bye();
    incoming.ended();
    assert_eq!(site.closed_call()["emergency"], true);
}

#[test]
fn a_start_without_dns_finds_the_peers_where_they_were() {
    let site = site();
    let dns = serve(&site);
    let gateway = site.start();
    let found = site.data().join("found-peers");
    crate::gateway::eventually("the peers on disk", Duration::from_secs(10), || {
        std::fs::read_to_string(&found).ok().filter(|text| text.contains(NAME))
    });
    gateway.kill();
    drop(dns);
    let _gateway = site.start();
    let (carrier, pbx) = (Carrier::new(&site), site.pbx_phone());
    for number in ["911", "7425555"] {
        let outgoing = pbx.call(number, CONSENT);
        if number == "911" {
            carrier.busy.incoming().reject(503, "Service Unavailable");
        }
        let incoming = carrier.good.incoming();
        incoming.answer();
        outgoing.answered();
        outgoing.bye();
        incoming.ended();
    }
}

#[test]
fn check_says_how_each_peer_is_found() {
    let site = site();
    let output = site.run(["check"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    let pbx = site.pbx();
    for line in [
        format!("peer pbx (district): at udp:{pbx}; not pinged"),
        format!(
            "peer carrier (public): by the NAPTR and SRV records of {NAME}, else its addresses; pinged each 30 s"
        ),
    ] {
        assert!(said.contains(&line), "{line}: {said}");
    }
}
