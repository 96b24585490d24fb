//! Telephone numbers in all their written forms.

use consent::{Dialled, E164, NumberBlock, NumberError, Numbering, PhoneContext};
use proptest::prelude::*;

use crate::stage::plan;

fn read(user: &str) -> String {
    match plan().normalise(user) {
        Dialled::Full(number) => number.as_str().to_owned(),
        Dialled::Other(text) => format!("other {text}"),
    }
}

#[test]
fn one_line_in_every_form_in_which_it_is_written() {
    for user in [
        "+18607427331",
        "18607427331",
        "8607427331",
        "7427331",
        "918607427331",
        "98607427331",
        "97427331",
        "01118607427331",
        "0018607427331",
        "901118607427331",
        "90018607427331",
        "+1 (860) 742-7331",
        "1-860-742-7331",
        "860.742.7331",
        "742-7331",
        " 7427331 ",
        "tel:+1-860-742-7331",
        "TEL:8607427331",
        "tel:7427331;phone-context=+1860",
        "tel:8607427331;phone-context=+1",
        "tel:18607427331;phone-context=+1",
        "7427331;phone-context=+1",
        "8607427331;phone-context=pbx.example",
        "+18607427331;ext=12;isub=7",
        "8607427331;npdi;Phone-Context=+1",
    ] {
        assert_eq!(read(user), "+18607427331", "{user}");
    }
}

#[test]
fn a_reading_without_the_outside_prefix_wins() {
    // Area code 959 overlays 860 in Connecticut; 942 is an exchange.
    assert_eq!(read("9597427331"), "+19597427331");
    assert_eq!(read("9427331"), "+18609427331");
    assert_eq!(read("9011442071838750"), "+442071838750");
}

#[test]
fn the_prefix_is_stripped_only_before_a_number() {
    assert_eq!(read("9911"), "other 9911");
    assert_eq!(read("97331"), "other 97331");
    assert_eq!(read("9"), "other 9");
    let without = Numbering::new("1", "860", "").unwrap();
    assert_eq!(without.normalise("98607427331"), Dialled::Other("98607427331".to_owned()));
}

#[test]
fn what_is_no_number_is_kept_as_it_is() {
    for user in [
        "service",
        "7331",
        "911",
        "*81",
        "",
        "+",
        "+1860x",
        "anonymous",
        "tel:",
        ";phone-context=+1",
        "1860742733",
        "860742733１",
        "0018",
        "1427331",
        "+01860742733",
        "+1234567890123456",
        "8601427331",
        "99999999999999999999999999999999999",
    ] {
        assert_eq!(read(user), format!("other {user}"));
    }
}

#[test]
fn a_number_abroad_keeps_its_country() {
    assert_eq!(read("+442071838750"), "+442071838750");
    assert_eq!(read("011442071838750"), "+442071838750");
    assert_eq!(read("2071838750;phone-context=+44"), "+442071838750");
    let abroad = Numbering::new("44", "20", "9").unwrap();
    assert_eq!(abroad.normalise("0018607427331").to_string(), "+18607427331");
    assert_eq!(abroad.normalise("8607427331"), Dialled::Other("8607427331".to_owned()));
}

#[test]
fn whose_plan_a_number_is_of() {
    for (user, context) in [
        ("7427331", PhoneContext::Absent),
        ("tel:7427331;ext=5;phone-contexts=+1", PhoneContext::Absent),
        ("7427331;PHONE-CONTEXT=+1 (860)", PhoneContext::Global),
        ("7427331;ext=5; phone-context = +1860", PhoneContext::Global),
        ("7427331;phone-context=town-b.example", PhoneContext::Domain),
        ("7427331;phone-context=pbx", PhoneContext::Domain),
        ("7427331;phone-context=10.1.0.1", PhoneContext::Domain),
        ("7427331;phone-context=1203", PhoneContext::Unreadable),
        ("7427331;phone-context=+1203x", PhoneContext::Unreadable),
        ("7427331;phone-context=+", PhoneContext::Unreadable),
        ("7427331;phone-context", PhoneContext::Unreadable),
        ("7427331;phone-context=+1860;phone-context=+1860", PhoneContext::Unreadable),
    ] {
        assert_eq!(PhoneContext::of(user), context, "{user}");
    }
}

#[test]
fn a_full_number_is_checked_and_an_error_says_what_is_wrong() {
    let parse = |text: &str| text.parse::<E164>();
    assert_eq!(parse("18607427331"), Err(NumberError::MissingPlus));
    assert_eq!(parse("+1860-742"), Err(NumberError::NotDigits));
    assert_eq!(parse("+"), Err(NumberError::NotDigits));
    assert_eq!(parse("+12"), Err(NumberError::Length { digits: 2 }));
    assert_eq!(parse("+1234567890123456"), Err(NumberError::Length { digits: 16 }));
    assert_eq!(parse("+0123"), Err(NumberError::LeadingZero));
    assert_eq!(parse("+911").unwrap().to_string(), "+911");
}

#[test]
fn a_numbering_plan_is_checked() {
    let plan = |country: &str, area: &str, prefix: &str| Numbering::new(country, area, prefix).err();
    assert_eq!(plan("1", "860", "9"), None);
    for country in ["", "0", "+1", "1234"] {
        assert_eq!(plan(country, "860", "9"), Some(NumberError::Country));
    }
    for area in ["", "86", "160", "8600", "86x"] {
        assert_eq!(plan("1", area, "9"), Some(NumberError::AreaCode));
    }
    for prefix in ["*9", "9999"] {
        assert_eq!(plan("1", "860", prefix), Some(NumberError::OutsidePrefix));
    }
}

/// I4: what a developer prints shows no digit.
#[test]
fn debug_forms_hide_the_number() {
    let dialled = plan().normalise("8607427331");
    let shown = format!("{dialled:?} {:?} {:?}", dialled.number(), crate::stage::inbound("8607427331"));
    assert!(!shown.contains("742"), "{shown}");
}

#[test]
fn json_holds_a_number_as_text_and_refuses_a_false_one() {
    let number: E164 = serde_json::from_str("\"+18607427331\"").unwrap();
    assert_eq!(serde_json::to_string(&number).unwrap(), "\"+18607427331\"");
    assert!(serde_json::from_str::<E164>("\"8607427331\"").is_err());
}

proptest! {
    #[test]
    fn any_text_is_understood_or_kept(user in "\\PC*") {
        match plan().normalise(&user) {
            Dialled::Full(number) => prop_assert!(number.as_str().parse::<E164>().is_ok()),
            Dialled::Other(text) => prop_assert_eq!(text, user),
        }
    }

    #[test]
    fn anything_near_a_number_is_understood_or_kept(
        user in "(tel:)?[+]?[0-9 ().-]{0,18}(;(ext|phone-context|isub)=[+a-z0-9.-]{0,8}){0,3}",
    ) {
        if let Dialled::Full(number) = plan().normalise(&user) {
            // What is full stays what it is.
            prop_assert_eq!(plan().normalise(number.as_str()), Dialled::Full(number));
        }
    }

    #[test]
    fn every_form_of_one_number_reads_alike(
        area in "[2-9][0-9]{2}", exchange in "[2-9][0-9]{2}", rest in "[0-9]{4}", form in 0..7_usize,
    ) {
        let national = format!("{area}{exchange}{rest}");
        let forms = [
            format!("+1{national}"), format!("1{national}"), national.clone(), format!("9{national}"),
            format!("91{national}"), format!("0111{national}"), format!("({area}) {exchange}-{rest}"),
        ];
        prop_assert_eq!(read(&forms[form]), format!("+1{national}"));
    }
}

#[test]
fn a_block_has_one_number_or_all_that_begin_alike() {
    let number = |text: &str| E164::try_from(text.to_owned()).unwrap();
    let has = |block: &str, text: &str| block.parse::<NumberBlock>().unwrap().contains(&number(text));
    assert!(has("+18607427331", "+18607427331") && !has("+18607427331", "+186074273310"));
    assert!(
        has("+1860742*", "+18607427331") && has("+1860742*", "+1860742") && !has("+1860742*", "+18607437331")
    );
    for (text, error) in [
        ("8607427331", NumberError::MissingPlus),
        ("*", NumberError::MissingPlus),
        ("+1860742x", NumberError::NotDigits),
        ("+1*", NumberError::Length { digits: 1 }),
    ] {
        assert_eq!(text.parse::<NumberBlock>(), Err(error), "{text}");
    }
}
