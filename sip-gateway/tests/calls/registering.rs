//! Registration with a carrier (RFC 3261 §10.2); `registration` has the table.

use consent::Side;
use sip_gateway::wire::NameAddr;
use sip_gateway::{Command, Event, Input, Listener, Output, Transport};

use crate::failover::{dns, named, resolve};
use crate::proof::*;
use crate::transports::on_stream;
use crate::world::*;

const CHALLENGE: &str =
    "WWW-Authenticate: Digest realm=\"carrier\", nonce=\"r1\", algorithm=SHA-256, qop=\"auth\"\r\n";

fn trunk() -> World {
    let mut config = config();
    let mut known = account();
    known.register_s = Some(600);
    config.peers[1].account = Some(known);
    World::with(config)
}

fn bound(register: &Msg, expires_s: u32, extra: &str) -> String {
    let contact = format!("Contact: {};expires={expires_s}\r\n{extra}", register.get("Contact"));
    register.answer("200 OK", "registrar", &contact, "")
}

fn is_registered(world: &World) -> bool {
    world.core.registrations(world.now.mono).map(|(_, registered)| registered).collect::<Vec<_>>() == [true]
}

/// Starts, and is granted 600 s.
fn registered(extra: &str) -> (World, Msg) {
    let mut world = trunk();
    world.advance(0);
    let register = world.expect(CARRIER, "REGISTER ");
    world.send(CARRIER, bound(&register, 600, extra));
    assert!(is_registered(&world));
    (world, register)
}

/// The milliseconds until the next message to the carrier, up to a limit.
fn until_next(world: &mut World, limit_ms: u64) -> (u64, Msg) {
    for ms in (0..=limit_ms).step_by(100) {
        if let Some(message) = world.next(CARRIER) {
            return (ms, message);
        }
        world.advance(100);
    }
    panic!("nothing within {limit_ms} ms");
}

fn number(message: &Msg) -> u32 {
    message.get("CSeq").split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_gateway_registers_at_once_and_proves_itself() {
    let mut world = trunk();
    assert!(!is_registered(&world));
    world.advance(0);
    let bare = world.expect(CARRIER, "REGISTER sip:10.2.0.20 SIP/2.0\r\n");
    let record = format!("<sip:{USER}@10.2.0.20>");
    assert_eq!(bare.get("To"), record);
    assert!(bare.get("From").starts_with(&format!("{record};tag=")));
    assert_eq!(bare.get("Contact"), format!("<sip:{USER}@10.0.0.1:5060>"));
    assert_eq!((bare.get("Expires"), bare.get("Supported"), bare.get("Max-Forwards")), ("600", "path", "70"));
    assert!(!bare.headers().contains("Authorization"));
    world.send(CARRIER, bare.answer("401 Unauthorized", "registrar", CHALLENGE, ""));
    let proven = world.expect(CARRIER, "REGISTER ");
    for same in ["Call-ID", "From", "To", "Contact"] {
        assert_eq!(proven.get(same), bare.get(same), "{same}");
    }
    assert_eq!(number(&proven), number(&bare) + 1);
    assert_good(proven.get("Authorization"), "REGISTER", "sip:10.2.0.20");
    assert!(!is_registered(&world));
    world.send(CARRIER, bound(&proven, 600, ""));
    assert!(is_registered(&world));
}

#[test]
fn it_refreshes_at_80_to_90_percent_with_the_same_nonce() {
    let mut world = trunk();
    world.advance(0);
    let bare = world.expect(CARRIER, "REGISTER ");
    world.send(CARRIER, bare.answer("401 Unauthorized", "registrar", CHALLENGE, ""));
    let first = world.expect(CARRIER, "REGISTER ");
    world.send(CARRIER, bound(&first, 100, ""));
    let (ms, second) = until_next(&mut world, 100_000);
    assert!((80_000..=90_100).contains(&ms), "{ms}");
    assert_eq!((second.get("Call-ID"), second.tag("From")), (first.get("Call-ID"), first.tag("From")));
    assert_eq!(number(&second), number(&first) + 1);
    assert_eq!(param(second.get("Authorization"), "nc"), "00000002");
    assert_good(second.get("Authorization"), "REGISTER", "sip:10.2.0.20");
    assert!(is_registered(&world));
    // The nonce has aged; the number goes on from the one that was sent last.
    let stale = CHALLENGE.replace("r1", "r2").replace("qop", "stale=true, qop");
    world.send(CARRIER, second.answer("401 Unauthorized", "registrar", &stale, ""));
    let third = world.expect(CARRIER, "REGISTER ");
    assert_eq!(number(&third), number(&second) + 1);
    world.send(CARRIER, bound(&third, 100, ""));
    let (_, fourth) = until_next(&mut world, 100_000);
    assert_eq!(number(&fourth), number(&third) + 1);
}

#[test]
fn a_wrong_password_is_one_answer_and_then_a_wait() {
    let mut world = trunk();
    world.advance(0);
    let bare = world.expect(CARRIER, "REGISTER ");
    world.send(CARRIER, bare.answer("401 Unauthorized", "registrar", CHALLENGE, ""));
    let proven = world.expect(CARRIER, "REGISTER ");
    world.send(CARRIER, proven.answer("401 Unauthorized", "registrar", CHALLENGE, ""));
    world.expect_nothing(CARRIER);
    assert!(!is_registered(&world));
    let (ms, again) = until_next(&mut world, 61_000);
    assert!((30_000..=60_100).contains(&ms), "{ms}");
    assert!(!again.headers().contains("Authorization"), "what was refused is not sent again");
}

#[test]
fn a_minimum_is_taken_and_an_outage_waited_out() {
    let mut world = trunk();
    world.advance(0);
    let register = world.expect(CARRIER, "REGISTER ");
    world.send(CARRIER, register.answer("423 Interval Too Brief", "r", "Min-Expires: 1800\r\n", ""));
    let longer = world.expect(CARRIER, "REGISTER ");
    assert_eq!((longer.get("Expires"), number(&longer)), ("1800", number(&register) + 1));
    world.send(CARRIER, longer.answer("503 Service Unavailable", "r", "Retry-After: 300\r\n", ""));
    let (ms, again) = until_next(&mut world, 301_000);
    assert!((300_000..=300_100).contains(&ms), "{ms}");
    assert_eq!(again.get("Expires"), "1800");
    // No answer at all: Timer F, then the wait.
    let (ms, _) = until_next(&mut world, 1_000);
    assert!(ms <= 600, "repeated as every request is");
    world.advance(32_000);
    world.take_all(CARRIER);
    let (ms, _) = until_next(&mut world, 121_000);
    assert!(ms >= 58_000, "{ms}");
}

#[test]
fn an_answer_to_an_old_register_changes_nothing() {
    let (mut world, register) = registered("");
    world.send(CARRIER, register.answer("403 Forbidden", "r", "", ""));
    assert!(is_registered(&world));
}

#[test]
fn a_refused_refresh_is_no_registration_and_a_lost_one_is_until_it_expires() {
    for (status, still) in [("403 Forbidden", false), ("500 Oops", true)] {
        let (mut world, _) = registered("");
        let (_, refresh) = until_next(&mut world, 550_000);
        world.send(CARRIER, refresh.answer(status, "r", "", ""));
        assert_eq!(is_registered(&world), still, "{status}");
        world.take_all(CARRIER);
        world.advance(120_000);
        assert!(!is_registered(&world));
    }
}

/// RFC 3608 §6.1.
#[test]
fn calls_take_the_service_route_in_order_and_at_its_first_hop() {
    let routes = "Service-Route: <sip:10.2.0.20:5090;lr>\r\nService-Route: <sip:core.example;lr;odd>\r\n\
                  Path: <sip:edge.example;lr>\r\n";
    let (mut world, _) = registered(routes);
    let mut a = Ua::caller(PBX, "18605550100");
    world.send(PBX, a.invite("Route: <sip:10.0.0.1;lr>\r\n", ""));
    let invite = world.expect("10.2.0.20:5090", "INVITE sip:18605550100@10.2.0.20 ");
    let sent: Vec<&str> = invite.headers().all("Route").collect();
    assert_eq!(sent, ["<sip:10.2.0.20:5090;lr>", "<sip:core.example;lr;odd>"]);
    // The ACK of a failure goes the same way, and what is inside the dialog goes Record-Route's.
    world.send(CARRIER, invite.answer("200 OK", "t", "Contact: <sip:x@10.2.0.20:5060>\r\n", ""));
    let ok = world.take_all(PBX).pop().unwrap();
    a.learn(&ok);
    world.send(PBX, a.request("ACK", "", ""));
    assert!(!world.expect(CARRIER, "ACK ").headers().contains("Route"));
    // A refresh without Service-Route takes it away (RFC 3608 §6.1).
    let (_, refresh) = until_next(&mut world, 550_000);
    assert!(!refresh.headers().contains("Route"));
    world.send(CARRIER, bound(&refresh, 600, ""));
    let mut other = Ua::caller(PBX, "200");
    (other.call_id, other.branch) = ("other".to_owned(), 70);
    world.send(PBX, other.invite("", ""));
    assert!(!world.expect(CARRIER, "INVITE ").headers().contains("Route"));
}

/// RFC 3608 §6.1.
#[test]
fn a_service_route_of_somebody_elses_address_does_not_lead_there() {
    let (mut world, _) = registered("Service-Route: <sip:203.0.113.66;lr>\r\n");
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", ""));
    assert_eq!(world.expect(CARRIER, "INVITE ").get("Route"), "<sip:203.0.113.66;lr>");
    world.expect_nothing(STRANGER);
}

#[test]
fn a_call_to_our_contact_is_for_whom_to_names() {
    let (mut world, register) = registered("");
    let contact = NameAddr::parse(register.get("Contact")).unwrap().uri.to_owned();
    let mut caller = Ua::caller(CARRIER, "+18607427331");
    caller.uri = contact;
    world.send(CARRIER, caller.invite("", ""));
    let invite = world.expect(PBX, "INVITE sip:+18607427331@10.1.0.10 ");
    assert!(!invite.text().contains(USER));
    let Event::Offered(offer) = world.event(|event| matches!(event, Event::Offered(_))) else {
        unreachable!()
    };
    assert_eq!(offer.request_user, "+18607427331");
    // Any other Request-URI stands as it is.
    let mut direct = Ua::caller(CARRIER, "7399");
    (direct.call_id, direct.branch) = ("direct".to_owned(), 70);
    world.send(CARRIER, direct.invite("", ""));
    world.expect(PBX, "INVITE sip:7399@10.1.0.10 ");
}

/// A carrier may serve registered trunks only.
#[test]
fn a_gateway_that_drains_stays_registered_and_takes_emergency_calls() {
    let (mut world, register) = registered("");
    world.command(Command::Drain);
    world.expect_nothing(CARRIER);
    let (_, refresh) = until_next(&mut world, 600_000);
    assert_ne!(refresh.get("Expires"), "0");
    world.send(CARRIER, bound(&refresh, 600, ""));
    assert!(number(&refresh) > number(&register) && is_registered(&world));
    let mut a = Ua::caller(PBX, "911");
    world.send(PBX, a.invite("", ""));
    world.expect(CARRIER, "INVITE sip:911@");
}

#[test]
fn leaving_ends_the_registration_and_leaves_nothing() {
    let (mut world, register) = registered("");
    world.command(Command::Drain);
    world.command(Command::Leave);
    let end = world.expect(CARRIER, "REGISTER ");
    assert_eq!((end.get("Expires"), end.get("Call-ID")), ("0", register.get("Call-ID")));
    assert!(world.core.is_unregistering());
    world.send(CARRIER, end.answer("401 Unauthorized", "r", CHALLENGE, ""));
    let proven = world.expect(CARRIER, "REGISTER ");
    assert_eq!(proven.get("Expires"), "0");
    world.send(CARRIER, proven.answer("200 OK", "r", "", ""));
    assert!(!world.core.is_unregistering() && !is_registered(&world));
    world.assert_clean();
    world.expect_nothing(CARRIER);
}

#[test]
fn a_registrar_that_is_gone_does_not_hold_up_the_end() {
    let (mut world, _) = registered("");
    world.command(Command::Leave);
    world.advance(33_000);
    assert!(!world.core.is_unregistering());
    world.assert_clean();
}

#[test]
fn over_a_stream_it_registers_again_when_that_is_lost() {
    let mut config = config();
    config.peers[1] = peer("carrier", Side::Public, CARRIER, Transport::Tcp);
    let mut known = account();
    known.register_s = Some(600);
    config.peers[1].account = Some(known);
    let mut world = World::with(config);
    world.advance(0);
    let Output::Connect { stream, .. } = world.streams.remove(0) else { panic!("no Connect") };
    let register = Msg::new(world.stream_bytes(stream).into());
    assert!(register.get("Contact").ends_with(";transport=tcp>"));
    world.input(Input::StreamBytes { stream, bytes: bound(&register, 600, "").into() });
    assert!(is_registered(&world));
    world.input(Input::StreamClosed { stream });
    world.advance(30_000);
    let Output::Connect { stream: second, .. } = world.streams.remove(0) else { panic!("no Connect") };
    let again = Msg::new(world.stream_bytes(second).into());
    assert_eq!(number(&again), number(&register) + 1);
    assert_ne!(second, stream);
}

/// RFC 3608 §6.1, RFC 5923 §5: calls of both directions go the stream of the registration.
#[test]
fn by_tls_it_registers_and_calls_on_one_stream_and_again_when_that_is_lost() {
    let mut config = config();
    config.listeners.push(Listener { transport: Transport::Tls, address: addr("10.0.0.1:5061") });
    config.peers[1] = peer("carrier", Side::Public, "10.2.0.20:5061", Transport::Tls);
    let mut known = account();
    known.register_s = Some(600);
    config.peers[1].account = Some(known);
    let mut world = World::with(config);
    world.advance(0);
    let Output::Connect { stream, .. } = world.streams.remove(0) else { panic!("no Connect") };
    world.input(Input::StreamReady { stream, certified: Vec::new() });
    let bare = on_stream(&mut world, stream).remove(0);
    assert_eq!(bare.get("Contact"), format!("<sip:{USER}@10.0.0.1:5061;transport=tls>"));
    let refusal = bare.answer("401 Unauthorized", "registrar", CHALLENGE, "");
    world.input(Input::StreamBytes { stream, bytes: refusal.into() });
    let proven = on_stream(&mut world, stream).remove(0);
    assert_good(proven.get("Authorization"), "REGISTER", &proven.request().uri);
    // The usual port may be left out.
    let contact = format!(
        "Contact: <sip:{USER}@10.0.0.1;transport=tls>;expires=600\r\n\
         Service-Route: <sips:10.2.0.20:5061;lr>\r\n"
    );
    let ok = proven.answer("200 OK", "registrar", &contact, "");
    world.input(Input::StreamBytes { stream, bytes: ok.into() });
    assert!(is_registered(&world));
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", ""));
    let invite = on_stream(&mut world, stream).remove(0);
    assert_eq!(invite.get("Route"), "<sips:10.2.0.20:5061;lr>");
    assert_eq!(invite.get("Contact"), "<sips:10.0.0.1:5061>", "§8.1.1.8: the first Route asks for it");
    assert!(!invite.headers().contains("Authorization"), "the registrar's nonce is the registrar's");
    let mut b = Ua::caller("10.2.0.20:5061", USER);
    b.remote = "<sip:+18607427331@10.0.0.1>".to_owned();
    let inbound = b.invite("", "").replace("SIP/2.0/UDP", "SIP/2.0/TLS");
    world.input(Input::StreamBytes { stream, bytes: inbound.into() });
    assert!(on_stream(&mut world, stream)[0].text().starts_with("SIP/2.0 100 "));
    world.event(|event| matches!(event, Event::Offered(offer) if offer.request_user == "+18607427331"));
    assert!(world.streams.is_empty(), "no other stream");
    world.input(Input::StreamClosed { stream });
    world.advance(30_000);
    let again = world.streams.iter().find_map(|output| match output {
        Output::Stream { bytes, .. } if bytes.starts_with(b"REGISTER ") => Some(Msg::new(bytes.clone())),
        _ => None,
    });
    assert_eq!(number(&again.expect("a REGISTER")), number(&proven) + 1);
}

#[test]
fn a_peer_that_no_listener_reaches_is_not_registered_with_and_harms_nobody() {
    let mut config = config();
    config.listeners.truncate(1);
    config.peers[2] = peer("carrier6", Side::Public, "[2001:db8:1::20]:5060", Transport::Udp);
    let mut known = account();
    known.register_s = Some(600);
    config.peers[2].account = Some(known);
    let mut world = World::with(config);
    world.advance(600_000);
    assert!(!is_registered(&world) && world.sent.is_empty());
    world.command(Command::Leave);
    assert!(!world.core.is_unregistering());
    world.assert_clean();
}

/// A carrier at a name with three addresses.
fn named_trunk() -> World {
    let mut config = named();
    let mut known = account();
    known.register_s = Some(600);
    config.peers[1].account = Some(known);
    World::with(config)
}

#[test]
fn a_carrier_at_a_name_is_registered_with_as_soon_as_it_is_found() {
    let mut world = named_trunk();
    world.advance(5_000);
    world.expect_nothing(CARRIER);
    resolve(&mut world, |question| Ok(dns(question)));
    let register = world.expect(CARRIER, "REGISTER sip:trunk.example SIP/2.0\r\n");
    assert_eq!(register.get("To"), format!("<sip:{USER}@trunk.example>"));
    world.send(CARRIER, bound(&register, 600, ""));
    assert!(is_registered(&world));
    // What DNS says later changes nothing of it.
    world.advance(60_000);
    resolve(&mut world, |question| Ok(dns(question)));
    world.expect_nothing(CARRIER);
}

#[test]
fn a_silent_registrar_is_left_for_the_carriers_next_address() {
    let mut world = named_trunk();
    world.advance(0);
    resolve(&mut world, |question| Ok(dns(question)));
    let first = world.expect(CARRIER, "REGISTER ");
    // Timer F.
    world.advance(32_000);
    world.take_all(CARRIER);
    // The first wait.
    world.advance(61_000);
    world.expect_nothing(CARRIER);
    let again = world.expect(CARRIER2, "REGISTER ");
    assert_eq!(number(&again), number(&first) + 1);
    world.send(CARRIER2, bound(&again, 600, ""));
    assert!(is_registered(&world));
}

#[test]
fn an_emergency_call_tries_the_carriers_other_addresses_when_its_service_route_is_silent() {
    let mut world = named_trunk();
    world.advance(0);
    resolve(&mut world, |question| Ok(dns(question)));
    let register = world.expect(CARRIER, "REGISTER ");
    world.send(CARRIER, bound(&register, 600, "Service-Route: <sip:10.3.0.30;lr>\r\n"));
    let mut a = Ua::caller(PBX, "911");
    world.send(PBX, a.invite("", ""));
    assert_eq!(world.expect(CARRIER2, "INVITE sip:911@").get("Route"), "<sip:10.3.0.30;lr>");
    world.advance(1_500);
    assert_eq!(world.expect(CARRIER, "INVITE sip:911@").get("Route"), "<sip:10.3.0.30;lr>");
}
