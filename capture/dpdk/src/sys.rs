//! The C functions of `shim/`; `shim/shim.h` declares the same. Results are 0 or more, or a negative errno.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::io::IoSlice;

/// Bytes of a name, with the zero at its end.
pub(crate) const TEXT_BYTES: usize = 64;
/// [`Frame::flags`]: the NIC computed a hash.
pub(crate) const HASH: u16 = 1;
/// [`Frame::flags`]: a VLAN tag was stripped.
pub(crate) const VLAN: u16 = 2;
/// [`Frame::flags`]: the device took the time.
pub(crate) const STAMP: u16 = 4;
/// [`Frame::flags`]: the frame does not lie in the pool's memory in one piece.
pub(crate) const COPY: u16 = 8;

/// `struct rte_mbuf`.
#[repr(C)]
pub(crate) struct Mbuf(c_void);

/// `struct rte_mempool`.
#[repr(C)]
pub(crate) struct Mempool(c_void);

#[repr(C)]
pub(crate) struct Device {
    pub driver: [u8; TEXT_BYTES],
    pub rss_types: u64,
    pub socket: i32,
    pub rx_queues: u16,
    pub tx_queues: u16,
    pub mtu_max: u16,
    pub scatters: u8,
    pub stamps: u8,
}

#[repr(C)]
pub(crate) struct Config {
    pub rss_types: u64,
    pub rx_queues: u16,
    pub tx_queues: u16,
    pub rx_descriptors: u16,
    pub tx_descriptors: u16,
    pub mtu: u16,
    pub scatter: u8,
    pub stamps: u8,
}

#[repr(C)]
pub(crate) struct Pool {
    pub mempool: *mut Mempool,
    pub zone: *const c_void,
    pub base: *mut u8,
    pub len: u64,
    pub spare: u64,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct Stats {
    pub packets: u64,
    pub bytes: u64,
    pub missed: u64,
    pub errors: u64,
    pub no_mbuf: u64,
}

#[repr(C)]
#[derive(Clone)]
pub(crate) struct Xstat {
    pub name: [u8; TEXT_BYTES],
    pub value: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Frame {
    pub offset: u64,
    pub stamp: u64,
    pub len: u32,
    pub hash: u32,
    pub vlan: u16,
    pub flags: u16,
    pub unused: u32,
}

#[repr(C)]
pub(crate) struct Rx {
    pub base: *const u8,
    pub len: u64,
    pub stamp_flag: u64,
    pub stamp_offset: i32,
    pub port: u16,
    pub queue: u16,
}

#[repr(C)]
pub(crate) struct FlowKey {
    pub src: [u8; 16],
    pub dst: [u8; 16],
    pub src_port: u16,
    pub dst_port: u16,
    pub vlan: u16,
    pub ipv6: u8,
}

#[repr(C)]
pub(crate) struct Flow {
    pub rule: *mut c_void,
    pub counter: *mut c_void,
}

unsafe extern "C" {
    pub(crate) fn ws_eal_init(argc: c_int, argv: *mut *mut c_char) -> c_int;
    pub(crate) fn ws_log_collect();
    pub(crate) fn ws_log_take(text: *mut u8, room: usize) -> usize;
    pub(crate) fn ws_thread_register() -> c_int;
    pub(crate) fn ws_thread_unregister();

    pub(crate) fn ws_port_find(name: *const c_char) -> c_int;
    pub(crate) fn ws_port_name(port: u16, name: *mut [u8; TEXT_BYTES]) -> c_int;
    pub(crate) fn ws_port_device(port: u16, device: *mut Device) -> c_int;
    pub(crate) fn ws_port_configure(port: u16, config: *mut Config) -> c_int;
    pub(crate) fn ws_rx_setup(
        port: u16,
        queue: u16,
        descriptors: u16,
        socket: c_int,
        pool: *const Pool,
    ) -> c_int;
    pub(crate) fn ws_tx_setup(port: u16, queue: u16, descriptors: u16, socket: c_int) -> c_int;
    pub(crate) fn ws_port_start(port: u16) -> c_int;
    pub(crate) fn ws_port_promiscuous(port: u16) -> c_int;
    pub(crate) fn ws_port_mtu(port: u16) -> c_int;
    pub(crate) fn ws_port_removed(port: u16) -> c_int;
    pub(crate) fn ws_port_close(port: u16);
    pub(crate) fn ws_port_clock(port: u16, ticks: *mut u64) -> c_int;
    pub(crate) fn ws_port_stats(port: u16, stats: *mut Stats) -> c_int;
    pub(crate) fn ws_port_xstats(port: u16, stats: *mut Xstat, room: c_uint) -> c_int;
    pub(crate) fn ws_pool_create(
        name: *const c_char,
        mbufs: u32,
        cache: u32,
        frame_bytes: u32,
        spare: u64,
        socket: c_int,
        pool: *mut Pool,
    ) -> c_int;
    pub(crate) fn ws_pool_free(pool: *mut Pool);

    pub(crate) fn ws_rx_stamps(rx: *mut Rx);
    pub(crate) fn ws_receive(rx: *const Rx, mbufs: *mut *mut Mbuf, frames: *mut Frame, most: u16) -> u16;
    pub(crate) fn ws_copy(mbuf: *const Mbuf, to: *mut u8, room: u32) -> u32;
    pub(crate) fn ws_free(mbufs: *mut *mut Mbuf, count: c_uint);
    pub(crate) fn ws_waiting(port: u16, queue: u16) -> c_int;
    pub(crate) fn ws_pause();
    pub(crate) fn ws_send(
        port: u16,
        queue: u16,
        mempool: *mut Mempool,
        frames: *const IoSlice<'_>,
        count: c_uint,
    ) -> c_uint;

    pub(crate) fn ws_flow_check(port: u16, why: *mut [u8; TEXT_BYTES]) -> c_int;
    pub(crate) fn ws_flow_create(port: u16, key: *const FlowKey, flow: *mut Flow) -> c_int;
    pub(crate) fn ws_flow_read(port: u16, flow: *const Flow, packets: *mut u64, bytes: *mut u64) -> c_int;
    pub(crate) fn ws_flow_stop(port: u16, flow: *mut Flow) -> c_int;
    pub(crate) fn ws_flow_forget(port: u16, flow: *mut Flow);
}

/// A name that C wrote.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
}
