//! 911 passes whatever state the rest of the gateway is in, and passes unchanged.

use std::time::{Duration, Instant};

use crate::dispatch_line::talk;
use crate::faults::lock_database;
use crate::gateway::{CITIZEN, CONSENT, Site};
use crate::phone::Invite;
use crate::sound::{self, LADDER_A_HZ, LADDER_B_HZ, LADDER_S};

/// The part that is not the session description: odd spacing, a tab, bytes that are not UTF-8.
const LOCATION: &[u8] =
    b"<?xml version='1.0'?>\n<presence  entity=\"pres:room\"\t>\n \xE9\xFF<a/>\n</presence>\n";

fn with_location(sdp: &str) -> (String, Vec<u8>) {
    let mut body = format!("--b-1\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n").into_bytes();
    body.extend_from_slice(
        b"--b-1\r\nContent-Type: application/pidf+xml\r\nContent-ID: <room@school.example>\r\n\r\n",
    );
    body.extend_from_slice(LOCATION);
    body.extend_from_slice(b"\r\n--b-1--\r\n");
    ("multipart/mixed;boundary=b-1".to_owned(), body)
}

#[test]
fn an_emergency_call_passes_with_the_database_locked_and_byte_for_byte() {
    let site = Site::new();
    let _gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let lock = lock_database(&site.database());

    let began = Instant::now();
    let invite = Invite::new("9911", "+18607427310")
        .header("Geolocation", "<cid:room@school.example>")
        .header("Geolocation-Routing", "yes")
        .header("X-Room", "  two  spaces;and=\"quoted\"")
        .body(with_location);
    let outgoing = pbx.invite(&invite);
    outgoing.media().say(&sound::ladder(LADDER_A_HZ, LADDER_S));
    let incoming = carrier.incoming();
    assert!(began.elapsed() < Duration::from_millis(500), "routed after {:?}", began.elapsed());
    incoming.media().say(&sound::ladder(LADDER_B_HZ, LADDER_S));

    let received = incoming.invite();
    assert!(received.uri().starts_with("sip:911@"), "sent on as 911: {}", received.uri());
    assert_eq!(received.header("Geolocation"), Some("<cid:room@school.example>"));
    assert_eq!(received.header("Geolocation-Routing"), Some("yes"));
    assert_eq!(received.header("X-Room"), Some("two  spaces;and=\"quoted\""));
    assert_eq!(received.header("Content-Type"), Some("multipart/mixed;boundary=b-1"));
    let whole = |part: &[u8]| received.body.windows(part.len()).any(|window| window == part);
    assert!(whole(LOCATION), "the location is byte for byte");
    assert!(whole(b"Content-ID: <room@school.example>\r\n"));
    assert_eq!(received.description().map(|sdp| sdp.rtp.ip()), Some(site.gateway().ip()));

    incoming.answer();
    outgoing.answered();
    std::thread::sleep(Duration::from_secs(3));
    let heard = sound::find_ladder(&incoming.media().heard(None), LADDER_A_HZ);
    assert!(heard.seconds() > 2.0 && heard.breaks == 0, "{heard:?}");
    outgoing.bye();
    incoming.ended();
    lock.release();

    let call = site.closed_call();
    assert_eq!(call["emergency"], true, "{call}");
    assert_eq!(call["recording_outcome"], "emergency", "{call}");
    assert_eq!(call["outcome"], "answered");
    assert!(site.recordings().is_empty(), "an emergency call stores nothing, whatever the line");
}

#[test]
fn every_form_of_an_emergency_number_reaches_the_carrier() {
    let site = Site::new();
    let _gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    for form in ["911", "9911", "933"] {
        let outgoing = pbx.call(form, CITIZEN);
        let incoming = carrier.incoming();
        let expected = if form == "933" { "sip:933@" } else { "sip:911@" };
        assert!(incoming.invite().uri().starts_with(expected), "{form} → {}", incoming.invite().uri());
        incoming.answer();
        outgoing.answered();
        outgoing.bye();
        incoming.ended();
    }
    assert!(site.closed_calls(3).iter().all(|call| call["emergency"] == true));
}

#[test]
fn an_emergency_call_outlasts_a_gateway_that_stops_and_may_be_called_back_meanwhile() {
    let site = Site::with(|_, text| text.replace("drain_s = 30", "drain_s = 1"));
    let gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let (outgoing, incoming) = talk(&pbx, &carrier, "911", CONSENT);
    gateway.counted("earmark_sip_emergency_calls_total", 1);
    std::thread::scope(|scope| {
        let end = scope.spawn(|| gateway.terminate());
        // The time for draining, that for the last calls, and a little.
        std::thread::sleep(Duration::from_millis(5_500));
        assert!(!outgoing.is_ended() && !incoming.is_ended(), "the call goes on");
        let back = carrier.invite(&Invite::new(CONSENT, CITIZEN).header("Priority", "psap-callback"));
        let rung = pbx.incoming();
        rung.answer();
        back.answered();
        back.bye();
        rung.ended();
        outgoing.bye();
        incoming.ended();
        assert_eq!(end.join().ok().flatten(), Some(0));
    });
    assert!(site.log().contains("an emergency service is called"));
    for call in site.closed_calls(2) {
        let told = (&call["emergency"], &call["outcome"], &call["recording_outcome"]);
        assert_eq!((told.0, told.1, told.2), (&true.into(), &"answered".into(), &"emergency".into()));
        assert_ne!(call["ended_by"], "gateway");
    }
}
