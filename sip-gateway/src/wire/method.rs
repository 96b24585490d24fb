//! The request method (RFC 3261 §7.1): known ones as rsip's enum, all others as received.

/// A method. Comparison is case-sensitive, as RFC 3261 §7.1 says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// One that rsip's enum names.
    Known(rsip::Method),
    /// Any other token, as received.
    Extension(String),
}

macro_rules! methods {
    ($($constant:ident $variant:ident $text:literal),* $(,)?) => {
        impl Method {
            $(
                #[doc = concat!("`", $text, "`.")]
                pub const $constant: Self = Self::Known(rsip::Method::$variant);
            )*

            /// The method that a token names.
            pub fn from_token(token: &str) -> Self {
                match token {
                    $($text => Self::$constant,)*
                    _ => Self::Extension(token.to_owned()),
                }
            }

            /// Its text on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::Known(rsip::Method::$variant) => $text,)*
                    Self::Extension(token) => token,
                }
            }
        }
    };
}

methods! {
    INVITE Invite "INVITE",
    ACK Ack "ACK",
    BYE Bye "BYE",
    CANCEL Cancel "CANCEL",
    OPTIONS Options "OPTIONS",
    REGISTER Register "REGISTER",
    INFO Info "INFO",
    UPDATE Update "UPDATE",
    PRACK PRack "PRACK",
    REFER Refer "REFER",
    NOTIFY Notify "NOTIFY",
    SUBSCRIBE Subscribe "SUBSCRIBE",
    MESSAGE Message "MESSAGE",
    PUBLISH Publish "PUBLISH",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_case_sensitive_and_extensions_stay_as_received() {
        assert_eq!(Method::from_token("INVITE"), Method::INVITE);
        assert_eq!(Method::from_token("invite").as_str(), "invite");
        assert_ne!(Method::from_token("invite"), Method::INVITE);
        assert_eq!(Method::from_token("RE%47IST%45R").as_str(), "RE%47IST%45R");
    }
}
