#![no_main]

use libfuzzer_sys::fuzz_target;
use wirespan_records::L4Protocol;

fuzz_target!(|input: &[u8]| {
    wirespan_l7::drive::script(None, L4Protocol::Tcp, input);
});
