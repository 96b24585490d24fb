//! Two telephones over loopback, at the media's own pace.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;

/// Long enough for anything that happens here; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

async fn phones() -> (Phone, Phone) {
    let caller = Phone::bind("127.0.0.3:0".parse().unwrap(), "+18605550100").await.unwrap();
    let callee = Phone::bind("127.0.0.2:0".parse().unwrap(), "office").await.unwrap();
    (caller, callee)
}

async fn connected(caller: &Phone, callee: &Phone) -> (Call, Call) {
    let outgoing = caller.call(callee.local(), "+18607427310").await.unwrap();
    let incoming = callee.await_call().await.unwrap();
    incoming.answer().await.unwrap();
    outgoing.until_answered().await.unwrap();
    (outgoing, incoming)
}

fn tone(period: usize, packets: usize) -> Vec<u8> {
    (0..packets * 160).map(|n| if (n / period).is_multiple_of(2) { 0x90 } else { 0x10 }).collect()
}

fn contains(audio: &[u8], part: &[u8]) -> bool {
    audio.windows(part.len()).any(|window| window == part)
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.unwrap_or_else(|_| panic!("not in time"))
}

/// Waits until the far end's packets so far have arrived: it has heard as many as were sent.
async fn until_heard(there: &Call, digits: &str, part: &[u8]) {
    within(async {
        while there.heard().digits() != digits || !contains(&there.heard().audio(), part) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_call_rings_with_early_media_is_answered_speaks_both_ways_sends_digits_and_ends() {
    let (caller, callee) = phones().await;
    let outgoing = caller.call(callee.local(), "+18607427310").await.unwrap();
    let incoming = callee.await_call().await.unwrap();
    assert_eq!(incoming.invitation().called, "+18607427310");
    assert_eq!(incoming.invitation().from, "+18605550100");
    incoming.ring().await.unwrap();
    within(outgoing.until(|state| *state == CallState::Ringing { status: 180 })).await;
    incoming.early_media().await.unwrap();
    let ringback = tone(9, 5);
    incoming.speak(&ringback).await.unwrap();
    until_heard(&outgoing, "", &ringback).await;
    incoming.answer().await.unwrap();
    outgoing.until_answered().await.unwrap();
    let (question, reply) = (tone(4, 20), tone(7, 20));
    let (asked, replied) = tokio::join!(outgoing.speak(&question), incoming.speak(&reply));
    asked.unwrap();
    replied.unwrap();
    outgoing.press('1').await.unwrap();
    outgoing.press('1').await.unwrap();
    outgoing.press('#').await.unwrap();
    until_heard(&incoming, "11#", &question).await;
    until_heard(&outgoing, "", &reply).await;
    assert_eq!(outgoing.press('x').await.unwrap_err().to_string(), "'x' is not a telephone key");
    outgoing.hang_up().await.unwrap();
    assert_eq!(within(incoming.until_ended()).await, Ending::There);
    assert_eq!(outgoing.state(), CallState::Ended(Ending::Here));
    assert!(matches!(outgoing.hang_up().await, Err(PhoneError::Over)));
}

#[tokio::test]
async fn hold_stops_the_far_end_and_a_handed_over_call_speaks_from_another_telephone() {
    let (caller, callee) = phones().await;
    let (outgoing, incoming) = connected(&caller, &callee).await;
    incoming.speak(&tone(4, 2)).await.unwrap();
    incoming.hold().await.unwrap();
    let sent_before = outgoing.sent().map(|sent| sent.packets);
    incoming.speak(&tone(5, 8)).await.unwrap();
    let sent_on_hold = outgoing.sent().map(|sent| sent.packets);
    // One packet may have been on its way out as the re-INVITE arrived.
    assert!(sent_on_hold.unwrap_or(0) <= sent_before.unwrap_or(0) + 1);
    incoming.resume().await.unwrap();
    let before = (incoming.media_address(), outgoing.heard().packets().first().unwrap().ssrc);
    incoming.hand_to("+18607427399").await.unwrap();
    assert_ne!(incoming.media_address(), before.0);
    let greeting = tone(6, 10);
    incoming.speak(&greeting).await.unwrap();
    until_heard(&outgoing, "", &greeting).await;
    assert_ne!(outgoing.heard().packets().last().unwrap().ssrc, before.1);
    outgoing.speak(&tone(3, 4)).await.unwrap();
    until_heard(&incoming, "", &tone(3, 4)).await;
    incoming.hang_up().await.unwrap();
    assert_eq!(within(outgoing.until_ended()).await, Ending::There);
}

#[tokio::test]
async fn a_call_is_cancelled_refused_and_dropped() {
    let (caller, callee) = phones().await;
    let outgoing = caller.call(callee.local(), "1").await.unwrap();
    let incoming = callee.await_call().await.unwrap();
    outgoing.hang_up().await.unwrap();
    assert_eq!(within(outgoing.until_ended()).await, Ending::Cancelled);
    assert_eq!(within(incoming.until_ended()).await, Ending::Cancelled);

    let outgoing = caller.call(callee.local(), "2").await.unwrap();
    callee.await_call().await.unwrap().refuse(603).await.unwrap();
    assert!(matches!(outgoing.until_answered().await, Err(PhoneError::Refused { status: 603 })));

    let (outgoing, incoming) = connected(&caller, &callee).await;
    drop(outgoing);
    assert_eq!(within(incoming.until_ended()).await, Ending::There);
}

#[tokio::test]
async fn a_lost_invite_and_a_lost_answer_are_sent_again_and_quiet_after_speech_is_noticed() {
    let (caller, callee) = phones().await;
    let lossy = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let relay = lossy.local_addr().unwrap();
    let (from, to) = (caller.local(), callee.local());
    // Loses the first datagram of each direction.
    let network = tokio::spawn(async move {
        let mut datagram = vec![0; MAX_MESSAGE_BYTES];
        let mut lost = [false; 2];
        while let Ok((length, source)) = lossy.recv_from(&mut datagram).await {
            let upstream = usize::from(source == from);
            if std::mem::replace(&mut lost[upstream], true) {
                let destination = if source == from { to } else { from };
                let _ = lossy.send_to(&datagram[..length], destination).await;
            }
        }
    });
    let outgoing = caller.call(relay, "3").await.unwrap();
    let incoming = within(callee.await_call()).await.unwrap();
    incoming.answer().await.unwrap();
    within(outgoing.until_answered()).await.unwrap();
    let greeting = tone(4, 20);
    let (quiet, spoken) =
        tokio::join!(within(outgoing.until_quiet(Duration::from_millis(100))), incoming.speak(&greeting));
    quiet.unwrap();
    assert!(spoken.unwrap().began.elapsed() >= Duration::from_millis(480));
    network.abort();
}
