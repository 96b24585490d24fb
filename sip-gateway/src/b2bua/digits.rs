//! Digits in INFO bodies: `application/dtmf-relay` (`Signal=5`) and `application/dtmf` (`5`). Neither has an
//! RFC; every PBX sends one or the other.

use crate::wire::{MediaType, Request, name};

/// The digit that an INFO carries, if it carries one.
pub(crate) fn digit_of(info: &Request) -> Option<char> {
    let media_type = MediaType::parse(info.headers.first(name::CONTENT_TYPE)?).ok()?;
    let text = std::str::from_utf8(&info.body).ok()?;
    if media_type.is("application/dtmf-relay") {
        let signal = text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            key.trim().eq_ignore_ascii_case("Signal").then_some(value)
        });
        return digit(signal?);
    }
    if media_type.is("application/dtmf") { digit(text) } else { None }
}

fn digit(text: &str) -> Option<char> {
    match text.trim() {
        "10" => Some('*'),
        "11" => Some('#'),
        "12" => Some('A'),
        "13" => Some('B'),
        "14" => Some('C'),
        "15" => Some('D'),
        text => {
            let mut chars = text.chars();
            let digit = chars.next()?.to_ascii_uppercase();
            let known = matches!(digit, '0'..='9' | '*' | '#' | 'A'..='D');
            (known && chars.next().is_none()).then_some(digit)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Method;

    fn read(content_type: &str, body: &'static str) -> Option<char> {
        let mut info = Request::new(Method::INFO, "sip:x");
        info.headers.push(name::CONTENT_TYPE, content_type);
        info.body = body.into();
        digit_of(&info)
    }

    #[test]
    fn both_forms_are_read() {
        assert_eq!(read("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n"), Some('5'));
        assert_eq!(read("Application/DTMF-Relay; x=y", "duration=1\nsignal = *\n"), Some('*'));
        assert_eq!(read("application/dtmf-relay", "Signal=11\r\n"), Some('#'));
        assert_eq!(read("application/dtmf", "d"), Some('D'));
        assert_eq!(read("application/dtmf", "1\r\n"), Some('1'));
    }

    #[test]
    fn anything_else_is_no_digit() {
        assert_eq!(read("application/dtmf", "55"), None);
        assert_eq!(read("application/dtmf", ""), None);
        assert_eq!(read("application/dtmf-relay", "5"), None);
        assert_eq!(read("application/dtmf-relay", "Signal=16"), None);
        assert_eq!(read("text/plain", "5"), None);
    }
}
