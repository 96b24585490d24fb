//! See `sip_gateway::fuzz::digest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| sip_gateway::fuzz::digest(octets));
