//! Loss of any one message, many calls, and nothing left behind.

use crate::world::*;

/// Both ends as automata that repeat what RFC 3261 makes them repeat: a call from INVITE to BYE.
/// Returns how many messages passed.
fn call_losing(lose: Option<usize>) -> usize {
    let mut world = World::new();
    world.lose = lose;
    let mut a = Ua::caller(PBX, "100");
    let mut sent_by_a = a.invite("", &sdp(OFFER_IP, 4000, ""));
    let mut last_of_b: Option<String> = None;
    let (mut acked, mut hung_up, mut ended) = (None::<String>, false, false);
    world.send(PBX, &sent_by_a);
    let mut waited_ms = 0;
    while !ended && waited_ms < 60_000 {
        while let Some(message) = world.next(CARRIER) {
            match &message.message {
                sip_gateway::wire::Message::Request(request) => match request.method.as_str() {
                    "INVITE" => {
                        let contact = format!("Contact: <sip:line@{CARRIER}>\r\n");
                        let ok = message.answer("200 OK", "t", &contact, &sdp(ANSWER_IP, 5000, ""));
                        world.send(CARRIER, &ok);
                        last_of_b = Some(ok);
                    }
                    "ACK" => last_of_b = None,
                    "BYE" => world.send(CARRIER, message.answer("200 OK", "", "", "")),
                    other => panic!("{other}"),
                },
                sip_gateway::wire::Message::Response(_) => panic!("no response is for B"),
            }
        }
        while let Some(message) = world.next(PBX) {
            let status = message.response().status;
            match (status, message.get("CSeq").rsplit(' ').next().unwrap()) {
                (200, "INVITE") => {
                    let ack = acked.get_or_insert_with(|| {
                        a.learn(&message);
                        a.request("ACK", "", "")
                    });
                    let ack = ack.clone();
                    world.send(PBX, ack);
                    sent_by_a.clear();
                }
                (200, "BYE") => ended = true,
                _ => {}
            }
        }
        world.advance(500);
        waited_ms += 500;
        if !sent_by_a.is_empty() {
            let again = sent_by_a.clone();
            world.send(PBX, again);
        }
        if let Some(ok) = last_of_b.clone() {
            world.send(CARRIER, ok);
        }
        if acked.is_some() && last_of_b.is_none() && !hung_up {
            hung_up = true;
            sent_by_a = a.request("BYE", "", "");
            let bye = sent_by_a.clone();
            world.send(PBX, bye);
        }
    }
    assert!(ended, "losing message {lose:?}");
    let passed = world.passed;
    world.lose = None;
    world.advance(1_000);
    while let Some(message) = world.next(CARRIER) {
        if message.text().starts_with("BYE") {
            world.send(CARRIER, message.answer("200 OK", "", "", ""));
        }
    }
    assert_eq!(world.ended().len(), 1, "losing message {lose:?}");
    world.assert_clean();
    passed
}

#[test]
fn a_call_survives_the_loss_of_any_one_message() {
    let messages = call_losing(None);
    assert!(messages >= 10);
    for lost in 0..messages {
        call_losing(Some(lost));
    }
}

#[test]
fn two_thousand_calls_leave_nothing_behind() {
    let mut config = config();
    config.limits.max_calls = 5_000;
    let mut world = World::with(config);
    let mut ups = Vec::new();
    for number in 0..2_000u32 {
        let mut a = Ua::caller(PBX, "100");
        a.call_id = format!("call-{number}");
        a.branch = number * 10;
        a.local = format!("<sip:7331@10.1.0.10>;tag=t{number}");
        world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
        let invite = world.expect(CARRIER, "INVITE ");
        world.expect(PBX, "SIP/2.0 100 ");
        match number % 4 {
            // Answered, and one of the ends hangs up.
            0 | 1 => {
                let mut b = Ua::callee(CARRIER, &invite, "t");
                b.branch = 100_000 + number;
                world.send(CARRIER, invite.answer("200 OK", "t", &b.contact(), &sdp(ANSWER_IP, 5000, "")));
                let ok = world.expect(PBX, "SIP/2.0 200 ");
                a.learn(&ok);
                world.send(PBX, a.request("ACK", "", ""));
                world.expect(CARRIER, "ACK ");
                ups.push((a, b, number % 4 == 0));
            }
            2 => {
                world.send(CARRIER, invite.answer("486 Busy", "t", "", ""));
                world.expect(CARRIER, "ACK ");
                let busy = world.expect(PBX, "SIP/2.0 486 ");
                world.send(PBX, a.ack_failure(&busy));
            }
            // Cancelled, and nobody ever says anything again.
            _ => {
                world.send(CARRIER, invite.answer("180 Ringing", "t", "", ""));
                world.expect(PBX, "SIP/2.0 180 ");
                world.send(PBX, a.request("CANCEL", "", ""));
                world.take_all(PBX);
                world.expect(CARRIER, "CANCEL ");
            }
        }
    }
    assert_eq!(world.core.calls(), 1_000);
    for (mut a, mut b, caller) in ups {
        if caller {
            world.send(PBX, a.request("BYE", "", ""));
            let bye = world.expect(CARRIER, "BYE ");
            world.send(CARRIER, bye.answer("200 OK", "", "", ""));
        } else {
            // The other end is gone.
            world.send(CARRIER, b.request("BYE", "", ""));
        }
        world.take_all(PBX);
        world.take_all(CARRIER);
    }
    assert_eq!(world.ended().len(), 2_000);
    world.assert_clean();
    assert_eq!(world.ended().len(), 2_000);
}

#[test]
fn the_same_seed_and_inputs_give_the_same_outputs() {
    let bytes = |up: &Up| up.world.sent.iter().map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>();
    assert_eq!(bytes(&Up::new()), bytes(&Up::new()));
}
