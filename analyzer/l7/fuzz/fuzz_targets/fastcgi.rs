#![no_main]

use libfuzzer_sys::fuzz_target;
use wirespan_records::{L4Protocol, L7Protocol};

fuzz_target!(|input: &[u8]| {
    wirespan_l7::drive::script(Some(L7Protocol::FastCgi), L4Protocol::Tcp, input);
});
