//! Whether this process may capture at all. An interface's driver tells what it has, whoever asks; what the system refuses a process is
//! only found out by trying.

use wirespan_bpf::xdp::XdpProgram;

use crate::{CaptureError, sys};

/// A way to capture, or a part of one, and why this process may not have it.
pub type Way = (&'static str, Result<(), CaptureError>);

/// Opens sockets and loads the XDP program, and lets go of them: no interface sees anything of it.
pub fn ways() -> [Way; 3] {
    let socket = |domain, action| {
        let opened = sys::socket(domain, libc::SOCK_RAW);
        opened.map(drop).map_err(|source| CaptureError::system(action, "any interface", source))
    };
    [
        ("AF_PACKET", socket(libc::AF_PACKET, "open a packet socket")),
        ("AF_XDP", socket(libc::AF_XDP, "open an AF_XDP socket")),
        ("XDP program", XdpProgram::try_loading().map_err(CaptureError::from)),
    ]
}
