//! The reference: who was on the line and what each of them said, as it was seen from outside, at the
//! gateway's edge; and from that alone, when audio of the call may have been stored (invariant I1).
//!
//! - On a dispatch line: always, until the line's own end of the call is somebody else's.
//! - On a consent line: in a stretch with the same people, if each of them has said yes,
//!   having been asked; never while held; never after anybody withdrew; never at all after anybody declined.
//!   A telephone that says so for its party, and is trusted with that, needs not be asked; one that refuses,
//!   trusted or not, withdraws.
//! - Otherwise never.
//!
//! A stretch in which all said yes begins with the first packet of the question: what was said between the
//! answer and the question is nobody's to keep.
//!
//! It knows nothing of epochs, permits, attempts and timeouts: it allows more than the gateway does (a late
//! yes counts here), and forbids what the law forbids.

use consent::Leg;

use crate::clock::Time;

/// By what the call may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    Dispatch,
    Consent,
    Nothing,
}

/// What was seen of a call at the gateway's edge.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    pub(crate) ground: Ground,
    pub(crate) answered: Option<Time>,
    /// Who came to which leg when, after the two who began.
    pub(crate) arrivals: Vec<(Time, Leg, usize)>,
    /// When each leg's end was asked: a packet of the question left for it.
    pub(crate) asked: Vec<(Time, Leg)>,
    pub(crate) keys: Vec<Press>,
    /// Which party's telephone, trusted with it, has asked for a recording when.
    pub(crate) wishes: Vec<(Time, Leg, usize)>,
    /// When a telephone refused.
    pub(crate) refused: Option<Time>,
    /// Stretches of hold, the last perhaps without end.
    pub(crate) holds: Vec<(Time, Option<Time>)>,
    /// On a dispatch line: when the line's end became somebody else's.
    pub(crate) left_line: Option<Time>,
}

/// A key press.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Press {
    /// When the first of its packets that was not lost arrived.
    pub(crate) arrived: Time,
    /// When the finger came down, as the gateway can have known at the latest.
    pub(crate) began: Time,
    pub(crate) leg: Leg,
    pub(crate) key: char,
}

/// A stretch in which audio of these parties (of leg A and of leg B) may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Time,
    pub(crate) to: Time,
    pub(crate) parties: [usize; 2],
}

/// The code that takes consent back.
const WITHDRAW: &str = "*80";

impl Truth {
    pub(crate) const fn new(ground: Ground) -> Self {
        Self {
            ground,
            answered: None,
            arrivals: Vec::new(),
            asked: Vec::new(),
            keys: Vec::new(),
            wishes: Vec::new(),
            refused: None,
            holds: Vec::new(),
            left_line: None,
        }
    }

    /// When audio may be stored, on what has been seen so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        match self.ground {
            Ground::Nothing => Vec::new(),
            Ground::Dispatch => {
                let end = self.left_line.unwrap_or(Time::MAX);
                let stretches = self.stretches(0);
                stretches
                    .into_iter()
                    .map(|s| Span { to: s.to.min(end), ..s })
                    .filter(|s| s.from < s.to)
                    .collect()
            }
            Ground::Consent => self.answered.map_or_else(Vec::new, |answered| self.consented(answered)),
        }
    }

    /// When somebody took consent back.
    pub(crate) fn withdrawn(&self) -> Option<Time> {
        Leg::BOTH.into_iter().filter_map(|leg| self.withdrawn_by(leg)).chain(self.refused).min()
    }

    fn withdrawn_by(&self, leg: Leg) -> Option<Time> {
        let keys: Vec<Press> = self.keys.iter().copied().filter(|press| press.leg == leg).collect();
        let pressed =
            keys.windows(WITHDRAW.len()).find(|w| w.iter().map(|press| press.key).eq(WITHDRAW.chars()));
        pressed.and_then(|window| window.last()).map(|press| press.arrived)
    }

    /// The call cut where somebody came.
    fn stretches(&self, from: Time) -> Vec<Span> {
        let mut current = Span { from, to: Time::MAX, parties: [0, 0] };
        let mut stretches = Vec::new();
        for (at, leg, party) in &self.arrivals {
            let at = (*at).max(from);
            stretches.push(Span { to: at, ..current });
            current.from = at;
            current.parties[leg.index()] = *party;
        }
        stretches.push(current);
        stretches
    }

    fn consented(&self, answered: Time) -> Vec<Span> {
        let withdrawn = self.withdrawn().unwrap_or(Time::MAX);
        let mut spans = Vec::new();
        let mut agreed: [Option<usize>; 2] = [None, None];
        for stretch in self.stretches(answered) {
            let asked =
                |leg| self.asked.iter().find(|(at, l)| *l == leg && *at >= stretch.from && *at < stretch.to);
            let mut wished = stretch.from;
            for leg in Leg::BOTH {
                let party = stretch.parties[leg.index()];
                let first =
                    self.wishes.iter().find(|(at, l, p)| (*l, *p) == (leg, party) && *at < stretch.to);
                if let Some((at, ..)) = first {
                    agreed[leg.index()] = Some(party);
                    wished = wished.max(*at);
                }
            }
            let mut declined = false;
            let still =
                |agreed: &[Option<usize>; 2]| agreed.iter().zip(stretch.parties).all(|(a, p)| *a == Some(p));
            let all_wished = still(&agreed);
            for Press { arrived, began, leg, key } in self.keys.iter().copied() {
                let was_asked = asked(leg).is_some_and(|(asked, _)| *asked <= began);
                if arrived < stretch.from || arrived >= stretch.to || !was_asked {
                    continue;
                }
                match key {
                    '1' => agreed[leg.index()] = Some(stretch.parties[leg.index()]),
                    '2' if !still(&agreed) => declined = true,
                    _ => {}
                }
                if declined {
                    break;
                }
            }
            if declined {
                break;
            }
            let first = Leg::BOTH.into_iter().filter_map(|leg| Some(asked(leg)?.0)).min();
            // A doubt may lead to a question although all had wished for a recording.
            let from = first.filter(|first| !all_wished || *first < wished).unwrap_or(wished);
            let span = Span { from, to: stretch.to.min(withdrawn), ..stretch };
            if still(&agreed) && span.from < span.to {
                spans.extend(self.without_holds(span));
            }
        }
        spans
    }

    fn without_holds(&self, span: Span) -> Vec<Span> {
        let mut rest = vec![span];
        for (from, to) in &self.holds {
            let to = to.unwrap_or(Time::MAX);
            let cut = |s: Span| [Span { to: s.to.min(*from), ..s }, Span { from: s.from.max(to), ..s }];
            rest = rest.into_iter().flat_map(cut).filter(|s| s.from < s.to).collect();
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(at: Time, leg: Leg, key: char) -> Press {
        Press { arrived: at, began: at, leg, key }
    }

    fn asked_and_agreed() -> Truth {
        Truth {
            answered: Some(100),
            asked: vec![(110, Leg::A), (110, Leg::B)],
            keys: vec![press(200, Leg::A, '1'), press(300, Leg::B, '1')],
            ..Truth::new(Ground::Consent)
        }
    }

    #[test]
    fn all_who_are_there_must_have_said_yes() {
        let both = asked_and_agreed();
        assert_eq!(both.spans(), [Span { from: 110, to: Time::MAX, parties: [0, 0] }]);
        let mut one = both.clone();
        one.keys.pop();
        assert_eq!(one.spans(), []);
        let mut early = both.clone();
        early.asked[1].0 = 301;
        assert_eq!(early.spans(), [], "nobody had asked");
        let mut held_down = both.clone();
        held_down.keys[1].began = 109;
        assert_eq!(held_down.spans(), [], "the key was down before the question");
    }

    #[test]
    fn a_no_a_withdrawal_a_hold_and_a_newcomer_end_it() {
        let mut no = asked_and_agreed();
        no.keys.insert(1, press(250, Leg::B, '2'));
        assert_eq!(no.spans(), []);
        let mut back = asked_and_agreed();
        back.keys.extend("*80".chars().zip(400..).map(|(key, at)| press(at, Leg::A, key)));
        assert_eq!(back.spans()[0].to, 402);
        let mut held = asked_and_agreed();
        held.holds = vec![(500, Some(600))];
        assert_eq!(
            held.spans().iter().map(|s| (s.from, s.to)).collect::<Vec<_>>(),
            [(110, 500), (600, Time::MAX)]
        );
        let mut newcomer = asked_and_agreed();
        newcomer.arrivals = vec![(500, Leg::B, 1)];
        assert_eq!(newcomer.spans(), [Span { from: 110, to: 500, parties: [0, 0] }]);
    }

    #[test]
    fn a_trusted_telephones_word_stands_for_a_key_and_a_refusal_for_a_withdrawal() {
        let wished = Truth {
            answered: Some(100),
            wishes: vec![(50, Leg::A, 0), (100, Leg::B, 0)],
            ..Truth::new(Ground::Consent)
        };
        assert_eq!(wished.spans(), [Span { from: 100, to: Time::MAX, parties: [0, 0] }]);
        let mut doubted = wished.clone();
        doubted.asked = vec![(500, Leg::A), (500, Leg::B)];
        assert_eq!(doubted.spans(), wished.spans());
        let mut one = wished.clone();
        one.wishes.pop();
        assert_eq!(one.spans(), []);
        one.asked = vec![(110, Leg::B)];
        one.keys = vec![press(200, Leg::B, '1')];
        assert_eq!(one.spans()[0].from, 110, "the other was asked");
        let mut refused = wished.clone();
        refused.refused = Some(300);
        assert_eq!(refused.spans()[0].to, 300);
        refused.refused = Some(60);
        assert_eq!(refused.spans(), []);
        let mut newcomer = wished;
        newcomer.arrivals = vec![(500, Leg::B, 1)];
        assert_eq!(newcomer.spans().len(), 1, "nobody has spoken for the newcomer");
    }
}
