//! The four calls: who calls whom, who says and presses what, and what must come of it.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use tokio::sync::Mutex;

use super::phone::{Call, CallState, Dial};
use super::setup::{ANSWER_TIMEOUT_S, CONSENT_LINE, DISPATCH_LINE, Setup};
use super::speech::{self, Clip};
use super::{mu_law, progress};

/// How long the called telephone rings.
const RINGING: Duration = Duration::from_millis(1_000);

/// North American ringback is 440 and 480 Hz together; µ-law of that, in packets of 20 ms.
const RINGBACK_HZ: [f64; 2] = [440.0, 480.0];

/// Whom the office transfers its caller to: an extension that is no line.
const EXTENSION: &str = "+18607427355";

/// How long somebody waits after an announcement before pressing a key.
const PAUSE: Duration = Duration::from_millis(1_000);

/// How long anything that must happen may take, before the party goes on without it.
const PATIENCE: Duration = Duration::from_secs(25);

/// How long the gateway may take to let a call through.
const SETUP_PATIENCE: Duration = Duration::from_secs(10);

/// What must come of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// `recording_outcome` of the contract.
    pub(super) outcome: &'static str,
    /// `basis` of the contract.
    pub(super) basis: Option<&'static str>,
}

/// A call that is over, as its parties saw it.
pub(super) struct Placed {
    /// In `demo.json`.
    pub(super) name: &'static str,
    /// For people.
    pub(super) title: &'static str,
    pub(super) line: &'static str,
    /// The Call-ID of the caller's leg.
    pub(super) sip_call_id: String,
    pub(super) expected: Expected,
    pub(super) seen: Seen,
}

/// What else the parties noted.
pub(super) enum Seen {
    Nothing,
    /// The dispatch call's media.
    Media(Media),
    /// When the PBX announced the transfer.
    Transfer(SystemTime),
}

/// The media of a call, on the telephones' clocks.
pub(super) struct Media {
    /// The first RTP packet from either party.
    pub(super) first: Instant,
    pub(super) first_wall: SystemTime,
    /// The end of the last packet from either party.
    pub(super) last: Instant,
    pub(super) answered: Instant,
    /// What the caller, and what the called party, said.
    pub(super) spoken: [Utterance; 2],
}

/// A clip with the instant at which its first packet left.
pub(super) struct Utterance {
    pub(super) clip: Clip,
    pub(super) began: Instant,
}

/// The telephones and the gateway between them.
pub(super) struct Stage<'a> {
    setup: &'a Setup,
    /// Calls are set up one at a time, so that each caller meets its own callee.
    dialling: Mutex<()>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(setup: &'a Setup) -> Self {
        Self { setup, dialling: Mutex::new(()) }
    }

    /// All four at once; in the order in which they are told.
    pub(super) async fn play(&self) -> anyhow::Result<[Placed; 4]> {
        let (dispatch, agreed, declined, transferred) =
            tokio::try_join!(self.dispatch(), self.agreed(), self.declined(), self.transferred())?;
        Ok([dispatch, agreed, declined, transferred])
    }

    /// An incoming call rings with early media, is answered, and both parties speak.
    async fn dispatch(&self) -> anyhow::Result<Placed> {
        let ringback = ringback();
        let (caller, callee) = self.connect("+18605550101", DISPATCH_LINE).await.context("dispatch call")?;
        callee.early_media().await?;
        callee.speak(&ringback).await?;
        callee.answer().await?;
        let answered = Instant::now();
        caller.until_answered().await?;
        progress("dispatch: answered, the caller reports smoke");
        let asked = say(&caller, speech::DISPATCH_CALLER).await?;
        let replied = say(&callee, speech::DISPATCH_OFFICER).await?;
        hang_up(&caller, &callee).await?;
        progress("dispatch: over");
        let media = media_of(&caller, &callee, answered, [asked, replied])?;
        Ok(Placed {
            name: "dispatch",
            title: "A call to the dispatch line",
            line: DISPATCH_LINE,
            sip_call_id: caller.id().to_owned(),
            expected: Expected { outcome: "recorded", basis: Some("dispatch-line") },
            seen: Seen::Media(media),
        })
    }

    /// Both parties press 1 and talk.
    async fn agreed(&self) -> anyhow::Result<Placed> {
        let (caller, callee) =
            self.answered("+18605550102").await.context("call that both agree to record")?;
        both_press(&caller, '1', &callee, '1', "both agree").await?;
        converse(&caller, &callee).await?;
        hang_up(&caller, &callee).await?;
        progress("both agree: over");
        Ok(Placed {
            name: "both-agree",
            title: "A call that both parties agree to record",
            line: CONSENT_LINE,
            sip_call_id: caller.id().to_owned(),
            expected: Expected { outcome: "recorded", basis: Some("all-party-consent") },
            seen: Seen::Nothing,
        })
    }

    /// The office agrees and the caller does not.
    async fn declined(&self) -> anyhow::Result<Placed> {
        let (caller, callee) = self.answered("+18605550103").await.context("call that one party declines")?;
        both_press(&caller, '2', &callee, '1', "one declines").await?;
        converse(&caller, &callee).await?;
        hang_up(&caller, &callee).await?;
        progress("one declines: over");
        Ok(Placed {
            name: "one-declines",
            title: "A call that one party declines to have recorded",
            line: CONSENT_LINE,
            sip_call_id: caller.id().to_owned(),
            expected: Expected { outcome: "refused", basis: None },
            seen: Seen::Nothing,
        })
    }

    /// Both agree; then the PBX transfers the call to somebody who never answers the question. The caller is
    /// asked again too, and agrees again.
    async fn transferred(&self) -> anyhow::Result<Placed> {
        let (caller, callee) = self.answered("+18605550104").await.context("call that is transferred")?;
        both_press(&caller, '1', &callee, '1', "transfer").await?;
        converse(&caller, &callee).await?;
        let other = self.referred(&callee, EXTENSION).await.context("the transfer")?;
        let at = SystemTime::now();
        other.answer().await?;
        let left = tokio::time::timeout(SETUP_PATIENCE, callee.until_ended()).await;
        left.context("the office was not told of its transfer's success")?;
        progress("transfer: somebody else is on the line, and is asked");
        tokio::try_join!(listen(&caller, "transfer"), listen(&other, "transfer"))?;
        caller.press('1').await.context("the call ended before a key was pressed")?;
        tokio::time::sleep(Duration::from_secs(ANSWER_TIMEOUT_S)).await;
        hang_up(&caller, &other).await?;
        progress("transfer: over");
        Ok(Placed {
            name: "transferred",
            title: "A call transferred to somebody who has not agreed",
            line: CONSENT_LINE,
            sip_call_id: caller.id().to_owned(),
            expected: Expected { outcome: "partly-recorded", basis: Some("all-party-consent") },
            seen: Seen::Transfer(at),
        })
    }

    /// A ringing call from the carrier to a line of the district.
    async fn connect(&self, from: &str, line: &str) -> anyhow::Result<(Call, Call)> {
        let _turn = self.dialling.lock().await;
        let Setup { carrier, pbx, gateway, .. } = self.setup;
        let caller = carrier.dial(Dial::new(*gateway, line).from(from)).await?;
        let callee = tokio::select! {
            callee = tokio::time::timeout(SETUP_PATIENCE, pbx.await_call()) => match callee {
                Ok(callee) => callee?,
                Err(_) => bail!("the gateway did not call the PBX (the caller stands at {:?})", caller.state()),
            },
            ending = caller.until_ended() => bail!("the gateway ended it before it rang ({ending:?})"),
        };
        callee.ring().await?;
        Ok((caller, callee))
    }

    /// Transfers a call to somebody else at the PBX, whose telephone rings.
    async fn referred(&self, call: &Call, to: &str) -> anyhow::Result<Call> {
        let _turn = self.dialling.lock().await;
        call.refer(to).await.context("REFER")?;
        let called = tokio::time::timeout(SETUP_PATIENCE, self.setup.pbx.await_call()).await;
        let other = called.context("the gateway did not call whom the REFER names")??;
        other.ring().await?;
        Ok(other)
    }

    async fn answered(&self, from: &str) -> anyhow::Result<(Call, Call)> {
        let (caller, callee) = self.connect(from, CONSENT_LINE).await?;
        let rang = caller.until(|state| *state != CallState::Placed);
        tokio::time::timeout(SETUP_PATIENCE, rang).await.context("the caller heard no ringing")?;
        callee.answer().await?;
        tokio::time::timeout(SETUP_PATIENCE, caller.until_answered())
            .await
            .context("the answer did not come through")??;
        Ok((caller, callee))
    }
}

async fn say(call: &Call, clip: Clip) -> anyhow::Result<Utterance> {
    let spoken = call.speak(clip.mu_law).await.context("the call ended while somebody spoke")?;
    Ok(Utterance { clip, began: spoken.began })
}

/// Parent and office, both at once, as people do.
async fn converse(caller: &Call, callee: &Call) -> anyhow::Result<()> {
    tokio::try_join!(say(caller, speech::PARENT), say(callee, speech::OFFICE))?;
    Ok(())
}

async fn both_press(
    caller: &Call,
    caller_key: char,
    callee: &Call,
    callee_key: char,
    what: &str,
) -> anyhow::Result<()> {
    progress(&format!("{what}: answered, both parties hear the question"));
    tokio::try_join!(listen(caller, what), listen(callee, what))?;
    callee.press(callee_key).await.context("the call ended before a key was pressed")?;
    caller.press(caller_key).await.context("the call ended before a key was pressed")?;
    progress(&format!("{what}: keys pressed"));
    Ok(())
}

/// Hears an announcement to its end. A party that hears none goes on after a while; what came of that is
/// seen in the call's record.
async fn listen(call: &Call, what: &str) -> anyhow::Result<()> {
    match tokio::time::timeout(PATIENCE, call.until_quiet(PAUSE)).await {
        Ok(heard) => heard.context("the call ended during an announcement"),
        Err(_) => {
            progress(&format!("{what}: no announcement was heard"));
            Ok(())
        }
    }
}

async fn hang_up(caller: &Call, callee: &Call) -> anyhow::Result<()> {
    caller.hang_up().await.context("hanging up")?;
    let ended = tokio::time::timeout(SETUP_PATIENCE, callee.until_ended()).await;
    ended.context("the PBX was not told that the caller hung up")?;
    Ok(())
}

fn media_of(
    caller: &Call,
    callee: &Call,
    answered: Instant,
    spoken: [Utterance; 2],
) -> anyhow::Result<Media> {
    let a = caller.sent().context("the caller sent no RTP")?;
    let b = callee.sent().context("the called party sent no RTP")?;
    let (first, first_wall) = (a.first_at, a.first_wall).min((b.first_at, b.first_wall));
    let last = a.last_at.max(b.last_at) + Duration::from_millis(20);
    Ok(Media { first, first_wall, last, answered, spoken })
}

/// A second of ringback in µ-law.
fn ringback() -> Vec<u8> {
    let samples = RINGING.as_millis() * 8;
    (0..samples).map(|n| mu_law::from_linear(ringback_sample(n as f64 / 8_000.0))).collect()
}

fn ringback_sample(at_s: f64) -> i16 {
    let sum: f64 = RINGBACK_HZ.iter().map(|hz| (std::f64::consts::TAU * hz * at_s).sin()).sum();
    // Two sines: within ±4,000.
    (sum * 2_000.0) as i16
}
