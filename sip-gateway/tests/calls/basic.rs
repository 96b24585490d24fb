//! The life of an ordinary call.

use consent::{Leg, Side};
use sip_gateway::{EndedBy, Event};

use crate::world::*;

#[test]
fn a_call_goes_through_and_ends_and_leaves_nothing() {
    let up = Up::new();
    let body = up.invite.body();
    assert!(body.contains("c=IN IP4 10.0.0.1") && body.contains("m=audio 20002 RTP/AVP 0 101"), "{body}");
    let body = up.ok.body();
    assert!(body.contains("c=IN IP4 10.0.0.1") && body.contains("m=audio 20000 RTP/AVP 0 101"), "{body}");
    assert_eq!(up.invite.request().uri, "sip:18605550100@10.2.0.20");
    assert_eq!(up.invite.get("Max-Forwards"), "69");
    up.hang_up();
}

#[test]
fn the_hub_learns_everything_before_it_is_passed_on() {
    let mut up = Up::new();
    let Event::Offered(offer) = up.world.event(|e| matches!(e, Event::Offered(_))) else { unreachable!() };
    assert_eq!(offer.side, Side::District);
    assert_eq!((offer.request_user.as_str(), offer.to_user.as_str()), ("18605550100", "18605550100"));
    assert_eq!(offer.caller.from, "7331");
    assert_eq!(offer.media.as_ref().unwrap().streams[0].rtp, Some(addr("10.1.0.99:4000")));
    let order: Vec<&str> = up.world.order.iter().map(String::as_str).collect();
    assert_eq!(
        order,
        [
            "10.1.0.10:5060 SIP/2.0 100 Trying",
            "event Offered",
            "event Routed",
            "10.2.0.20:5060 INVITE sip:18605550100@10.2.0.20 SIP/2.0",
            "event Progress",
            "10.1.0.10:5060 SIP/2.0 180 Ringing",
            "event Media",
            "event Media",
            "event Answered",
            "10.1.0.10:5060 SIP/2.0 200 OK",
            "10.2.0.20:5060 ACK sip:line@10.2.0.20:5060 SIP/2.0",
        ]
    );
}

#[test]
fn the_callee_may_hang_up_too() {
    let mut up = Up::new();
    up.world.send(CARRIER, up.b.request("BYE", "Reason: Q.850;cause=16\r\n", ""));
    up.world.expect(CARRIER, "SIP/2.0 200 OK");
    let bye = up.world.expect(PBX, "BYE ");
    assert_eq!(bye.get("Reason"), "Q.850;cause=16");
    up.world.send(PBX, bye.answer("200 OK", "", "", ""));
    let end = up.world.ended().remove(0);
    assert_eq!((end.by, end.final_status, end.cancelled), (Some(EndedBy::Callee), Some(200), false));
    up.world.assert_clean();
}

#[test]
fn early_media_is_told_and_rewritten() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
    let invite = world.expect(CARRIER, "INVITE ");
    world.send(CARRIER, invite.answer("183 Session Progress", "t", "", &sdp(ANSWER_IP, 5000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    let progress = world.expect(PBX, "SIP/2.0 183 Session Progress");
    assert!(progress.body().contains("m=audio 20000 "), "{}", progress.body());
    world.event(|e| matches!(e, Event::Media { leg: Leg::A, media, .. } if media.streams[0].rtp == Some(addr("10.1.0.99:4000"))));
    world.event(|e| matches!(e, Event::Media { leg: Leg::B, media, .. } if media.streams[0].rtp == Some(addr("10.2.0.99:5000"))));
}
