//! A dispatch permit for unit tests, from the one place that makes permits.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::sync::Arc;

use consent::{
    Action, Ask, Call, CallFacts, CallId, Direction, Epoch, Line, LineClass, Name, Now, Numbering, Permit,
    Preamble, RetentionTag, RuleSet, RuleVersion, Settings, Tone,
};

/// A permit for every epoch of `call` on its line.
pub(crate) fn dispatch_permit(call: CallId) -> Permit {
    let line = Line {
        number: "+18607427331".parse().unwrap(),
        name: "Police dispatch 1".to_owned(),
        class: LineClass::Dispatch,
        ask: Ask::EveryCall,
        retention: RetentionTag::try_from("RT-DISP-ROUTINE".to_owned()).unwrap(),
        aliases: Vec::new(),
        tone: None,
    };
    let settings = Settings {
        accept: '1',
        decline: '2',
        request: "*81".to_owned(),
        withdraw: "*80".to_owned(),
        answer_timeout_ms: 10_000,
        attempts: 2,
        preamble: Preamble::Memory,
        tone: Tone::Off,
    };
    let numbering = Numbering::new("1", "860", "9").unwrap();
    let rules = RuleSet::new(RuleVersion(1), numbering, vec![line], Vec::new(), settings).unwrap();
    let facts = CallFacts {
        direction: Direction::Inbound,
        called: vec![Name::known("+18607427331")],
        calling: Vec::new(),
        emergency: false,
        parties_signalled: true,
    };
    let mut actions = Vec::new();
    let _ = Call::new(call, Arc::new(rules), &facts, Now::default(), Epoch(0), &mut actions);
    let open = actions.into_iter().find_map(|action| match action {
        Action::Open { permit, .. } => Some(permit),
        _ => None,
    });
    open.expect("a dispatch call is open at once")
}
