//! Who is on the line: one numbering in record and decisions, and whose number is told nowhere.

use consent::Reason;

use super::*;

/// What is written of the parties, in order: who joined, and whom a decision names.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Joined(Leg, u32),
    Decided(Reason, Vec<(Leg, u32)>),
}

fn told(outputs: &[Output]) -> Vec<Told> {
    let entries = outputs.iter().filter_map(|output| match output {
        Output::Journal { stamped, .. } => Some(&stamped.entry),
        _ => None,
    });
    let told = entries.filter_map(|entry| match entry {
        Entry::PartyJoined { leg, ordinal, .. } => Some(Told::Joined(*leg, *ordinal)),
        Entry::Decided { decision, .. } => {
            let parties = decision.parties.iter().map(|party| (party.leg, party.ordinal));
            Some(Told::Decided(decision.reason, parties.collect()))
        }
        _ => None,
    });
    told.collect()
}

fn changed(hub: &mut Hub, leg: Leg, change: Change) {
    hub.on_gateway(at(9), Event::Changed { call: CALL, leg, change });
}

#[test]
fn decisions_number_the_parties_as_the_record_does_when_a_call_leaves_its_line_and_comes_back() {
    let mut hub = hub();
    let mut outputs = connect(&mut hub, offer(Side::Public, DISPATCH));
    // Told of before it is there.
    let identity = Identity { from: "7427355".to_owned(), ..Identity::default() };
    hub.on_gateway(at(8), Event::Vacated { call: CALL, leg: Leg::B, identity, side: Side::District });
    for user in ["7427355", NEVER, DISPATCH] {
        changed(&mut hub, Leg::B, replaced(user, true));
    }
    hang_up(&mut hub, at(100));
    outputs.extend(drain(&mut hub));
    let both = |callee| vec![(Leg::A, 0), (Leg::B, callee)];
    let expected = [
        Told::Joined(Leg::A, 0),
        Told::Decided(Reason::DispatchLine, vec![(Leg::A, 0)]),
        Told::Joined(Leg::B, 0),
        Told::Decided(Reason::LeftLine, both(0)),
        Told::Joined(Leg::B, 1),
        Told::Joined(Leg::B, 2),
        Told::Joined(Leg::B, 3),
        Told::Decided(Reason::DispatchLine, both(3)),
        Told::Decided(Reason::Ended, both(3)),
    ];
    assert_eq!(told(&outputs), expected);
}

#[test]
fn whom_a_redirection_named_and_nobody_reached_is_not_counted() {
    let mut hub = hub();
    hub.on_gateway(at(0), Event::Offered(Box::new(offer(Side::Public, DISPATCH))));
    for user in ["7427355", DISPATCH] {
        let target = Target { user: user.to_owned(), side: None, from: Side::Public, emergency: false };
        hub.on_gateway(at(5), Event::Diverted { call: CALL, leg: Leg::B, target });
    }
    hub.on_gateway(at(9), Event::Answered { call: CALL });
    hang_up(&mut hub, at(100));
    let told = told(&drain(&mut hub));
    assert!(told.contains(&Told::Joined(Leg::B, 0)), "{told:?}");
    assert_eq!(told.last(), Some(&Told::Decided(Reason::Ended, vec![(Leg::A, 0), (Leg::B, 0)])));
}

/// Everything that leaves the hub for the disk.
fn written(outputs: &[Output]) -> String {
    let entries = outputs.iter().filter_map(|output| match output {
        Output::Journal { stamped, .. } => Some(serde_json::to_string(stamped).unwrap()),
        _ => None,
    });
    entries.collect::<Vec<_>>().join("\n")
}

/// "Taped at all times", and the union's number is nobody's to see.
#[test]
fn a_union_number_that_comes_to_a_dispatch_call_is_told_nowhere_and_recording_goes_on() {
    let union = "8605550199";
    let known = |user: &str| named(Some(user), "");
    let dialled = Change::Replaced {
        identity: known("7427300"),
        called: Some(union.to_owned()),
        side: Side::Public,
        emergency: false,
        parties_signalled: true,
    };
    for change in [replaced(union, true), dialled, Change::NewParty { identity: known(union), called: None }]
    {
        let mut hub = hub();
        let mut outputs = connect(&mut hub, offer(Side::Public, DISPATCH));
        let epoch = shared_epoch(&outputs);
        changed(&mut hub, Leg::A, change);
        // The same person, perhaps.
        changed(&mut hub, Leg::A, Change::NewParty { identity: known("8605550177"), called: None });
        outputs.extend(drain(&mut hub));
        let written = written(&outputs);
        for number in [union, "7427300", "8605550177"] {
            assert!(!written.contains(number), "{written}");
        }
        assert_eq!(decided(&outputs), [Reason::DispatchLine]);
        assert!(begun(outputs).covers(CALL, epoch.current()));
    }
}

/// RFC 3325 §9.1: a desk's name, and a number.
#[test]
fn any_of_several_asserted_identities_bars_and_the_number_among_them_is_shown() {
    for (second, reasons, shown) in
        [(UNION_NUMBER, vec![Reason::Union], None), ("+18605550177", vec![], Some("+18605550177"))]
    {
        let asserted = vec!["jdoe".to_owned(), second.to_owned()];
        let caller = Identity { asserted, ..named(None, "anonymous") };
        let offer = Offer { caller, ..offer(Side::Public, "7427310") };
        let mut hub = hub();
        hub.on_gateway(at(0), Event::Offered(Box::new(offer)));
        let outputs = drain(&mut hub);
        assert_eq!((decided(&outputs), started(&outputs).from.as_deref()), (reasons, shown));
    }
}

#[test]
fn a_union_number_that_picks_a_dispatch_call_up_is_not_in_the_record_of_its_invite() {
    let mut hub = hub();
    connect(&mut hub, offer(Side::Public, DISPATCH));
    let replacement = Replacement {
        call: CALL,
        leg: Leg::A,
        record: CallId(8),
        caller: Identity { from: UNION_NUMBER.to_owned(), ..Identity::default() },
        side: Side::Public,
        request_user: String::new(),
        sip_call_id: "pick@up".to_owned(),
    };
    hub.on_gateway(at(9), Event::Replacing(Box::new(replacement)));
    assert_eq!(started(&drain(&mut hub)).from, None);
}

/// RFC 3966 §5.1.5: a number that is complete only with its context.
#[test]
fn a_listed_number_that_is_dialled_with_a_context_is_known() {
    let local = "5550199;phone-context=+1860";
    let caller = |user: &str| Identity { from: user.to_owned(), ..Identity::default() };
    let from_line = Offer { caller: caller("7427310"), ..offer(Side::District, local) };
    let outputs = connect(&mut hub(), from_line);
    assert_eq!(started(&outputs).to, None);
    assert!(!written(&outputs).contains("5550199"), "{}", written(&outputs));
    assert_eq!(decided(&outputs), [Reason::Union]);

    let from_union = Offer { caller: caller(local), ..offer(Side::Public, "7427310") };
    let outputs = connect(&mut hub(), from_union);
    assert_eq!(started(&outputs).from, None);
    assert_eq!(decided(&outputs), [Reason::Union]);

    let mut dispatch = hub();
    connect(&mut dispatch, offer(Side::Public, DISPATCH));
    changed(&mut dispatch, Leg::A, replaced(local, true));
    assert!(!written(&drain(&mut dispatch)).contains("5550199"));

    let mut hub = hub();
    hub.on_gateway(at(0), Event::Offered(Box::new(offer(Side::Public, "7427310"))));
    let target = Target { user: local.to_owned(), side: None, from: Side::Public, emergency: false };
    hub.on_gateway(at(2), Event::Diverted { call: CALL, leg: Leg::B, target });
    hub.on_gateway(at(5), Event::Answered { call: CALL });
    assert_eq!(decided(&drain(&mut hub)), [Reason::Union]);
}

#[test]
fn the_record_has_a_number_whole_and_what_is_none_without_parameters() {
    for (dialled, shown) in [
        ("8605550123;phone-context=+44", "+448605550123"),
        ("8605550123;phone-context=pbx.example.com", "+18605550123"),
        ("98605550123;ext=5", "+18605550123"),
        ("200;phone-context=pbx.example.com", "200"),
    ] {
        let outputs = connect(&mut hub(), offer(Side::District, dialled));
        assert_eq!(started(&outputs).to.as_deref(), Some(shown));
    }
}

/// Whoever replaces a party may dial the other end of the call, where the union is.
#[test]
fn an_invite_that_replaces_a_party_does_not_tell_a_union_calls_other_end_by_dialling_it() {
    let (union_line, caller) = ("+18607427320", "8605550100");
    let lines = vec![line(union_line, LineClass::Union), line("+18607427310", LineClass::Consent)];
    let numbers = vec![(UNION_NUMBER.parse().unwrap(), consent::NumberClass::Union)];
    let numbering = Numbering::new("1", "860", "9").unwrap();
    let rules = RuleSet::new(RuleVersion(1), numbering, lines, numbers, Settings::default()).unwrap();
    let rules = Arc::new(rules);
    let from_line = named(Some("7427310"), "");
    let to_union = Offer { caller: from_line, ..offer(Side::District, UNION_NUMBER) };
    for (offered, leg, dialled, shown) in [
        (offer(Side::Public, union_line), Leg::B, caller, None),
        (to_union, Leg::A, UNION_NUMBER, None),
        (offer(Side::Public, "7427310"), Leg::B, caller, Some("+18605550100")),
    ] {
        let mut hub = Hub::new("gw1".to_owned(), Arc::clone(&rules));
        connect(&mut hub, offered);
        let replacement = Replacement {
            call: CALL,
            leg,
            record: CallId(8),
            caller: Identity { from: "7427355".to_owned(), ..Identity::default() },
            side: Side::District,
            request_user: dialled.to_owned(),
            sip_call_id: "pick@up".to_owned(),
        };
        hub.on_gateway(at(9), Event::Replacing(Box::new(replacement)));
        let outputs = drain(&mut hub);
        let started = started(&outputs);
        assert_eq!(started.to.as_deref(), shown, "{dialled}");
        assert_eq!(started.from.as_deref(), Some("+18607427355"), "{dialled}");
    }
}

#[test]
fn a_dispatch_lines_call_that_is_redirected_to_a_union_number_does_not_tell_whom_it_reached() {
    let mut hub = hub();
    let caller = named(Some(DISPATCH), "");
    let offer = Offer { caller, ..offer(Side::District, "98605550123") };
    hub.on_gateway(at(0), Event::Offered(Box::new(offer)));
    let target = Target { user: UNION_NUMBER.to_owned(), side: None, from: Side::Public, emergency: false };
    hub.on_gateway(at(2), Event::Diverted { call: CALL, leg: Leg::B, target });
    hub.on_gateway(at(5), Event::Answered { call: CALL });
    let outputs = drain(&mut hub);
    assert!(told(&outputs).contains(&Told::Joined(Leg::B, 0)));
    assert!(!written(&outputs).contains("5550199"), "{}", written(&outputs));
    assert_eq!(decided(&outputs), [Reason::DispatchLine]);
}

/// The line's own call goes to the union: nothing is stored any more, and the number is told nowhere.
#[test]
fn a_union_number_in_the_lines_place_is_told_nowhere() {
    for called in [DISPATCH, "7427310"] {
        let mut hub = hub();
        let mut outputs = connect(&mut hub, offer(Side::Public, called));
        changed(&mut hub, Leg::B, replaced(UNION_NUMBER, true));
        outputs.extend(drain(&mut hub));
        assert!(!written(&outputs).contains("5550199"), "{called}");
        assert!(told(&outputs).contains(&Told::Joined(Leg::B, 1)), "{called}");
    }
}
