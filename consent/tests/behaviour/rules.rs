//! The rule set: what it refuses, and whose line a call is.

use consent::{
    Ask, CallFacts, CodeMatcher, Direction, Leg, Line, LineClass, Mono, Name, NumberClass, Preamble,
    RetentionTag, RuleError, RuleSet, RuleVersion, Settings, Tone,
};

use crate::stage::{
    DISPATCH, NEVER, OFFICE, STRANGER, Stage, UNION_LINE, UNION_NUMBER, facts, line, lines, number, numbers,
    plan, rules,
};

fn refusal(lines: Vec<Line>, settings: Settings) -> RuleError {
    RuleSet::new(RuleVersion(1), plan(), lines, numbers(), settings).expect_err("refused")
}

fn with(change: impl FnOnce(&mut Settings)) -> RuleError {
    let mut settings = Settings::default();
    change(&mut settings);
    refusal(lines(), settings)
}

#[test]
fn the_defaults_are_the_contracts() {
    let settings = Settings::default();
    assert_eq!((settings.accept, settings.decline), ('1', '2'));
    assert_eq!((settings.request.as_str(), settings.withdraw.as_str()), ("*81", "*80"));
    assert_eq!((settings.answer_timeout_ms, settings.attempts), (10_000, 2));
    assert_eq!((settings.preamble, settings.tone), (Preamble::Memory, Tone::Dispatch));
}

#[test]
fn a_number_belongs_to_one_line() {
    let mut twice = lines();
    twice.push(Line { name: "Second".to_owned(), ..line(OFFICE, LineClass::Never) });
    let error = refusal(twice, Settings::default());
    assert!(matches!(&error, RuleError::DuplicateNumber { second, .. } if second == "Second"));
    assert!(error.to_string().contains(OFFICE), "{error}");

    let mut alias = lines();
    alias[1].aliases.push(number(DISPATCH));
    assert!(matches!(refusal(alias, Settings::default()), RuleError::DuplicateNumber { .. }));
    let mut own = lines();
    own[0].aliases.push(number(DISPATCH));
    assert!(matches!(refusal(own, Settings::default()), RuleError::DuplicateNumber { .. }));
}

#[test]
fn a_number_has_one_class() {
    let two = vec![(number(STRANGER), NumberClass::Union), (number(STRANGER), NumberClass::Student)];
    let result = RuleSet::new(RuleVersion(1), plan(), lines(), two, Settings::default());
    assert!(matches!(result, Err(RuleError::ContradictoryClass { .. })));
}

#[test]
fn keys_and_codes_that_cannot_be_told_apart_are_refused() {
    let equal = with(|settings| settings.decline = '1');
    assert_eq!(equal, RuleError::Overlap { longer: "decline", code: "1".to_owned(), shorter: "accept" });
    let codes = with(|settings| settings.request = "*801".to_owned());
    assert_eq!(codes, RuleError::Overlap { longer: "request", code: "*801".to_owned(), shorter: "withdraw" });
    let answer = with(|settings| settings.withdraw = "22".to_owned());
    assert_eq!(answer, RuleError::Overlap { longer: "withdraw", code: "22".to_owned(), shorter: "decline" });
}

#[test]
fn settings_out_of_bounds_are_refused_by_name() {
    assert_eq!(
        with(|settings| settings.accept = 'x'),
        RuleError::NotAKey { setting: "accept", character: 'x' }
    );
    assert_eq!(
        with(|settings| settings.request = "*8e".to_owned()),
        RuleError::NotAKey { setting: "request", character: 'e' }
    );
    assert_eq!(
        with(|settings| settings.withdraw.clear()),
        RuleError::CodeLength { setting: "withdraw", length: 0 }
    );
    assert_eq!(
        with(|settings| settings.withdraw = "#".repeat(9)),
        RuleError::CodeLength { setting: "withdraw", length: 9 }
    );
    for attempts in [0, 11] {
        assert_eq!(with(|settings| settings.attempts = attempts), RuleError::Attempts { attempts });
    }
    for answer_timeout_ms in [0, 999, 120_001] {
        let error = with(|settings| settings.answer_timeout_ms = answer_timeout_ms);
        assert_eq!(error, RuleError::AnswerTimeout { answer_timeout_ms });
    }
    assert_eq!(with(|settings| settings.preamble = Preamble::Repeat), RuleError::PreambleRepeat);
}

#[test]
fn a_retention_tag_is_checked() {
    let tag = |text: &str| RetentionTag::try_from(text.to_owned());
    for good in ["RT-DISP-ROUTINE", "RT-CONSENT-REC", "M7A"] {
        assert_eq!(tag(good).unwrap().to_string(), good);
    }
    let long = "A".repeat(33);
    for bad in ["", "RT", "rt-disp", "RT DISP", "-RT", "RT-", "7RT", long.as_str()] {
        assert_eq!(tag(bad), Err(RuleError::RetentionTag { tag: bad.to_owned() }));
    }
}

#[test]
fn a_lines_aliases_are_the_line() {
    let mut aliased = lines();
    aliased[1].aliases.push(number("+18607427300"));
    let rules = RuleSet::new(RuleVersion(3), plan(), aliased, numbers(), Settings::default()).unwrap();
    let call = facts(Direction::Outbound, &[STRANGER], &["7427300"]);
    assert_eq!(rules.line_of(&call).unwrap().number, number(OFFICE));
    assert!(rules.is_line("97427300") && !rules.is_line("7427301") && !rules.is_line("service"));
    assert_eq!((rules.version(), rules.lines().len()), (RuleVersion(3), 6));
}

#[test]
fn a_line_matches_only_on_the_districts_side_of_the_call() {
    let rules = rules();
    let class = |direction, called: &[&str], calling: &[&str]| {
        rules.line_of(&facts(direction, called, calling)).map(|line| line.class)
    };
    assert_eq!(class(Direction::Inbound, &[OFFICE], &[DISPATCH]), Some(LineClass::Consent));
    assert_eq!(class(Direction::Outbound, &[DISPATCH], &[OFFICE]), Some(LineClass::Consent));
    assert_eq!(class(Direction::Outbound, &[DISPATCH], &[STRANGER]), None);
    assert_eq!(class(Direction::Inbound, &[STRANGER], &[DISPATCH]), None);
    assert_eq!(class(Direction::Internal, &["7310"], &[DISPATCH]), Some(LineClass::Dispatch));
    // What a public peer asserts beyond the Request-URI grants nothing, it only bars; what a trusted PBX
    // asserts does both.
    assert_eq!(class(Direction::Inbound, &[OFFICE, DISPATCH], &[STRANGER]), Some(LineClass::Consent));
    assert_eq!(class(Direction::Inbound, &[STRANGER, OFFICE, DISPATCH], &[STRANGER]), None);
    assert_eq!(
        class(Direction::Inbound, &[OFFICE, STRANGER, UNION_LINE], &[STRANGER]),
        Some(LineClass::Union)
    );
    assert_eq!(class(Direction::Inbound, &[OFFICE, NEVER], &[STRANGER]), Some(LineClass::Never));
    assert_eq!(class(Direction::Inbound, &[OFFICE], &[NEVER]), Some(LineClass::Consent));
    // No caller switches the recording of a dispatch line off.
    assert_eq!(
        class(Direction::Inbound, &[DISPATCH, UNION_LINE, NEVER], &[STRANGER]),
        Some(LineClass::Dispatch)
    );
    assert_eq!(class(Direction::Internal, &[OFFICE, DISPATCH], &[STRANGER]), Some(LineClass::Dispatch));
}

/// A telephone may write what it likes into From and To: that bars, and opens nothing without asking.
#[test]
fn only_a_known_name_makes_a_dispatch_lines_call() {
    use Direction::{Inbound, Internal, Outbound};
    let rules = rules();
    let (known, said) = (Name::known, Name::said);
    let (outside, inside) = (vec![known(STRANGER)], vec![known("7355")]);
    for (direction, called, calling, class, leg) in [
        (Outbound, &outside, vec![known(OFFICE), said(DISPATCH)], Some(LineClass::Consent), Leg::A),
        (Outbound, &outside, vec![said(DISPATCH)], None, Leg::A),
        (Outbound, &outside, vec![known("100"), said(DISPATCH)], None, Leg::A),
        (Outbound, &outside, vec![known(DISPATCH), said(OFFICE)], Some(LineClass::Dispatch), Leg::A),
        (Outbound, &outside, vec![known(OFFICE), said(NEVER)], Some(LineClass::Never), Leg::A),
        (Outbound, &outside, vec![known(DISPATCH), said(UNION_LINE)], Some(LineClass::Union), Leg::A),
        // Diverted to the outside it has left its line, which may bar it all the same.
        (Outbound, &vec![known(STRANGER), known(DISPATCH)], outside.clone(), None, Leg::A),
        (
            Outbound,
            &vec![known(STRANGER), known(DISPATCH)],
            vec![known(DISPATCH)],
            Some(LineClass::Dispatch),
            Leg::A,
        ),
        (Outbound, &vec![known(STRANGER), said(NEVER)], vec![known(OFFICE)], Some(LineClass::Never), Leg::B),
        (
            Outbound,
            &vec![known(STRANGER), known(UNION_LINE)],
            vec![known(DISPATCH)],
            Some(LineClass::Union),
            Leg::B,
        ),
        (Internal, &inside, vec![said(DISPATCH)], None, Leg::B),
        (Internal, &vec![known(OFFICE), said(DISPATCH)], inside.clone(), Some(LineClass::Consent), Leg::B),
        (
            Internal,
            &vec![known(OFFICE), said(DISPATCH)],
            vec![known(DISPATCH)],
            Some(LineClass::Dispatch),
            Leg::A,
        ),
        (Internal, &vec![known(OFFICE), said(UNION_LINE)], inside.clone(), Some(LineClass::Union), Leg::B),
        (Internal, &vec![known(DISPATCH)], vec![said(OFFICE)], Some(LineClass::Dispatch), Leg::B),
        (Inbound, &vec![known(DISPATCH), said(OFFICE)], outside.clone(), Some(LineClass::Dispatch), Leg::B),
        (Inbound, &vec![said(DISPATCH)], outside.clone(), None, Leg::B),
    ] {
        let called = called.clone();
        let facts = CallFacts { called, calling, ..facts(direction, &[], &[]) };
        let names =
            |side: &[Name<'_>]| side.iter().map(|name| (name.user.to_owned(), name.is_known())).collect();
        let case: [Vec<_>; 2] = [names(&facts.called), names(&facts.calling)];
        assert_eq!(rules.line_of(&facts).map(|line| line.class), class, "{direction:?} {case:?}");
        assert_eq!(Stage::new(&facts).call.line_leg(), leg, "{direction:?} {case:?}");
    }
}

/// RFC 3966 §5.1.5: in a plan that is not known a number may be anybody's. It bars what it might bar.
#[test]
fn a_number_of_another_plan_makes_no_dispatch_lines_call() {
    let rules = rules();
    for (context, certain) in [
        ("", true),
        (";ext=5", true),
        (";phone-context=+1860", true),
        (";Phone-Context=+1-860", true),
        (";phone-context=town-b.example", false),
        (";phone-context=town-b", false),
        (";phone-context=1203", false),
        (";phone-context=+1203x", false),
        (";phone-context=+", false),
        (";phone-context", false),
        (";phone-context=+1860;phone-context=+1203", false),
        (";phone-context=+1860;phone-context=+1860", false),
    ] {
        let named = |line: &str, direction| {
            let user = format!("{}{context}", &line[5..]);
            let (called, calling) = match direction {
                Direction::Outbound => (vec![STRANGER], vec![user.as_str()]),
                Direction::Inbound | Direction::Internal => (vec![user.as_str()], vec![STRANGER]),
            };
            rules.line_of(&facts(direction, &called, &calling)).map(|line| line.class)
        };
        for direction in [Direction::Inbound, Direction::Outbound, Direction::Internal] {
            let dispatch = certain.then_some(LineClass::Dispatch);
            assert_eq!(named(DISPATCH, direction), dispatch, "{context} {direction:?}");
            assert_eq!(named(NEVER, direction), Some(LineClass::Never), "{context} {direction:?}");
        }
    }
}

#[test]
fn where_several_lines_match_the_class_decides() {
    let rules = rules();
    let ranked = [UNION_LINE, NEVER, DISPATCH, OFFICE];
    for (rank, stronger) in ranked.iter().enumerate() {
        for weaker in &ranked[rank..] {
            for (called, calling) in [(stronger, weaker), (weaker, stronger)] {
                let call = facts(Direction::Internal, &[called], &[calling]);
                assert_eq!(rules.line_of(&call).unwrap().number, number(stronger));
            }
        }
    }
}

#[test]
fn within_a_class_the_called_side_comes_first() {
    let mut two = lines();
    two.push(line("+18607427313", LineClass::Consent));
    let rules = RuleSet::new(RuleVersion(1), plan(), two, numbers(), Settings::default()).unwrap();
    let call = facts(Direction::Internal, &["7427313"], &[OFFICE]);
    assert_eq!(rules.line_of(&call).unwrap().number, number("+18607427313"));
}

#[test]
fn classes_of_numbers_are_found_in_any_written_form() {
    let rules = rules();
    assert_eq!(rules.number_class("98605550199"), Some(NumberClass::Union));
    assert_eq!(rules.number_class("(860) 555-0198"), Some(NumberClass::Privileged));
    assert_eq!(rules.number_class(UNION_LINE), Some(NumberClass::Union));
    assert_eq!(rules.number_class(UNION_NUMBER), Some(NumberClass::Union));
    assert_eq!(rules.number_class(OFFICE), None);
    assert_eq!(rules.number_class("service"), None);
    assert_eq!(lines()[1].ask, Ask::EveryCall);
}

fn completes(code: &str, keys: &str) -> Vec<usize> {
    let mut matcher = CodeMatcher::new(code);
    let pressed = keys.chars().enumerate();
    pressed.filter_map(|(index, key)| matcher.push(key, Mono(1_000)).then_some(index)).collect()
}

#[test]
fn a_code_is_found_in_a_run_of_keys() {
    assert_eq!(completes("*80", "*80"), [2]);
    assert_eq!(completes("*80", "**80"), [3]);
    assert_eq!(completes("*80", "*8*80"), [4]);
    assert_eq!(completes("*80", "12*80*80"), [4, 7]);
    assert_eq!(completes("*80", "*8180"), [0_usize; 0]);
    assert_eq!(completes("*8*9", "*8*8*9"), [5]);
    assert_eq!(completes("##1", "####1"), [4]);
    assert_eq!(completes("", "123"), [0_usize; 0]);
}

#[test]
fn a_code_dialled_too_slowly_is_none() {
    let mut matcher = CodeMatcher::new("*80");
    assert!(!matcher.push('*', Mono(0)));
    assert!(!matcher.push('8', Mono(3_000_000)));
    assert!(matcher.push('0', Mono(6_000_000)), "three seconds between keys are allowed");
    assert!(!matcher.push('*', Mono(10_000_000)));
    assert!(!matcher.push('8', Mono(11_000_000)));
    assert!(!matcher.push('0', Mono(14_000_001)));
}
