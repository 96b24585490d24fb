//! What a certificate says of itself: whom it names as a SIP domain (RFC 5922 §7.1), and until when.
//!
//! Left out: the common name as a last resort (§7.1 step 2 permits to), wildcards (§7.2 forbids them), and
//! the key usage of RFC 5924.

use std::net::IpAddr;

use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::wire::Uri;

/// Names taken of one certificate; nobody needs more.
const MAX_NAMES: usize = 256;

/// The domains and addresses that a DER certificate stands for: those of its `sip:` URIs without a user;
/// only where there is none, its DNS names and addresses. None if it cannot be read.
pub(super) fn names(certificate: &[u8]) -> Vec<String> {
    let Some(SubjectAltName(all)) = alternative_names(certificate) else { return Vec::new() };
    let domains: Vec<String> = all.iter().filter_map(sip_domain).take(MAX_NAMES).collect();
    if domains.is_empty() { all.iter().filter_map(host).take(MAX_NAMES).collect() } else { domains }
}

/// Whether two names are the same one (§7.2).
pub(super) fn is_same(name: &str, other: &str) -> bool {
    name.eq_ignore_ascii_case(other)
}

/// The end of a DER certificate's validity in Unix seconds; `None` if it cannot be read.
pub(super) fn expires_s(certificate: &[u8]) -> Option<u64> {
    let certificate = Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate().validity().not_after.to_unix_duration().as_secs())
}

fn alternative_names(certificate: &[u8]) -> Option<SubjectAltName> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let (_critical, names) = certificate.tbs_certificate().get_extension().ok()??;
    Some(names)
}

fn sip_domain(name: &GeneralName) -> Option<String> {
    let GeneralName::UniformResourceIdentifier(uri) = name else { return None };
    match Uri::parse(uri.as_str()) {
        Ok(Uri::Sip(uri)) if !uri.secure && uri.user.is_none() => {
            Some(uri.host.trim_matches(['[', ']']).to_owned())
        }
        _ => None,
    }
}

fn host(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        GeneralName::IpAddress(octets) => {
            let octets = octets.as_bytes();
            let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    #[test]
    fn dns_names_and_addresses_count_without_a_sip_uri() {
        let v6 = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
        let san = vec![
            dns("pbx.example.org"),
            SanType::IpAddress(IpAddr::from([10, 0, 0, 1])),
            SanType::IpAddress(v6),
        ];
        assert_eq!(names(&certificate(san)), ["pbx.example.org", "10.0.0.1", "2001:db8::1"]);
        let others =
            vec![dns("a.example"), uri("https://b.example"), uri("sips:c.example"), uri("sip:u@d.example")];
        assert_eq!(names(&certificate(others)), ["a.example"]);
    }

    #[test]
    fn sip_uris_come_before_dns_names() {
        let san = vec![dns("host.example.org"), uri("SIP:example.org"), uri("sip:[2001:db8::1]:5061")];
        assert_eq!(names(&certificate(san)), ["example.org", "2001:db8::1"]);
    }

    #[test]
    fn what_cannot_be_read_names_nobody_and_never_ends() {
        let whole = certificate(vec![dns("a.example")]);
        for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
            assert!(names(&whole[..cut]).is_empty());
            assert_eq!(expires_s(&whole[..cut]), None);
        }
        assert!(names(&certificate(Vec::new())).is_empty());
    }

    #[test]
    fn a_name_is_matched_whole() {
        assert!(is_same("PBX.example.org", "pbx.Example.org"));
        assert!(!is_same("*.example.org", "pbx.example.org"));
        assert!(!is_same("example.org", "pbx.example.org"));
    }
}
