//! What calls a peer may begin, and how much one address may send.

use std::num::NonZeroU32;

use consent::Numbering;
use sip_gateway::{Allowance, Destinations, Pattern};

use super::judge::{Fault, fault};
use super::raw;

/// A hundred requests a second are no load, and pings and subscriptions of many telephones may share an address.
const LEAST_REQUESTS_PER_S: u32 = 100;

/// The keys of one peer.
pub(super) fn judge(
    key: &str,
    raw: &raw::Peer,
    numbering: &Numbering,
    all_calls: usize,
) -> Result<Allowance, Fault> {
    match raw.max_calls {
        Some(0) => return fault(format!("{key}.max_calls"), NONE, "give at least 1, or leave it out"),
        Some(most) if most > all_calls => {
            return fault(
                format!("{key}.max_calls"),
                format!("{most} is more than sip.max_calls ({all_calls})"),
                "give at most as many, or leave it out",
            );
        }
        Some(_) | None => {}
    }
    let calls_per_minute = raw.calls_per_minute.map(|most| {
        NonZeroU32::new(most).map_or_else(
            || fault(format!("{key}.calls_per_minute"), NONE, "give at least 1, or leave it out"),
            Ok,
        )
    });
    let refused = patterns(&format!("{key}.refuse_destinations"), &raw.refuse_destinations)?;
    let allowed = patterns(&format!("{key}.allow_destinations"), &raw.allow_destinations)?;
    if refused.is_empty() && !allowed.is_empty() {
        return fault(
            format!("{key}.allow_destinations"),
            "excepts from refuse_destinations, which refuses nothing",
            "add refuse_destinations = [\"all\"], or remove the key",
        );
    }
    Ok(Allowance {
        max_calls: raw.max_calls,
        calls_per_minute: calls_per_minute.transpose()?,
        refused: (!refused.is_empty()).then(|| Destinations::new(numbering.clone(), refused, allowed)),
    })
}

const NONE: &str = "no ordinary call could ever be made";

fn patterns(key: &str, texts: &[String]) -> Result<Vec<Pattern>, Fault> {
    let pattern = |(index, text): (usize, &String)| {
        text.parse().or_else(|_| {
            fault(
                format!("{key}[{index}]"),
                format!("\"{text}\" is no destination"),
                "use \"international\", \"premium\", \"all\", or the beginning of full numbers, such as \"+1900\"",
            )
        })
    };
    texts.iter().enumerate().map(pattern).collect()
}

/// As many a second as calls at once, unless it says otherwise.
pub(super) fn requests_per_s(sip: &raw::Sip) -> Result<NonZeroU32, Fault> {
    let usual = || u32::try_from(sip.max_calls).unwrap_or(u32::MAX).max(LEAST_REQUESTS_PER_S);
    let most = NonZeroU32::new(sip.requests_per_s.unwrap_or_else(usual));
    most.map_or_else(|| fault("sip.requests_per_s", "nothing could ever be asked", "give at least 1"), Ok)
}
