//! See `sip_gateway::fuzz::datagram`.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| sip_gateway::fuzz::datagram(octets));
