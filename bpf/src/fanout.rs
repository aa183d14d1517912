//! The program that spreads an AF_PACKET fanout group by the innermost packet (`programs/fanout.bpf.c`).

use std::os::fd::{AsFd, BorrowedFd};

use aya_obj::generated::bpf_prog_type;

use crate::BpfError;
use crate::object::{self, Loaded, Recipe};
use crate::xdp::{UdpTunnel, tunnel_port_bytes};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fanout.o"));

/// The program, loaded. A fanout group that was given it (`PACKET_FANOUT_DATA`) keeps it.
///
/// It gives [`flow_hash`](crate::flow_hash()), which the kernel takes modulo the number of sockets; frames that are no IP
/// packet go to the first socket.
#[derive(Debug)]
pub struct FanoutProgram {
    loaded: Loaded,
}

impl FanoutProgram {
    /// Loads the program; `tunnel_ports` as in [`XdpOptions`](crate::xdp::XdpOptions::tunnel_ports).
    pub fn load(seed: u64, tunnel_ports: &[(u16, UdpTunnel)]) -> Result<Self, BpfError> {
        let loaded = object::load(&Recipe {
            object: OBJECT,
            program: "wirespan_fanout",
            kind: (bpf_prog_type::BPF_PROG_TYPE_SOCKET_FILTER as u32, 0),
            constants: &[("seed", &seed.to_ne_bytes()), ("tunnel_ports", &tunnel_port_bytes(tunnel_ports))],
            max_entries: &[],
            flags: 0,
            ifindex: 0,
            kfuncs: &[],
        });
        Ok(Self { loaded: loaded.map_err(|error| BpfError::load(&error))? })
    }
}

impl AsFd for FanoutProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.loaded.program.as_fd()
    }
}
