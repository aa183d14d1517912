//! How a worker asks its source to stop delivering a flow's frames and to count them instead.

/// A flow as a source tells it: the innermost 5-tuple, with the VLAN and the tunnel it came in.
///
/// The layout is also that of the key in the eBPF map: no padding, addresses in network byte order, numbers in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShuntKey {
    /// Address of side A, the smaller (address, port); IPv4 as `::ffff:a.b.c.d`.
    pub a: [u8; 16],
    /// Address of side B.
    pub b: [u8; 16],
    /// Port of side A.
    pub a_port: u16,
    /// Port of side B.
    pub b_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// 0 without a tunnel, else 1 VXLAN, 2 GENEVE, 3 GRE, 4 ERSPAN, 5 IP in IP, 6 GTP-U.
    pub tunnel_kind: u8,
    /// 0 without a tag, else the VLAN id with bit 12 set: the outermost tag of the innermost Ethernet frame.
    pub vlan: u16,
    /// VNI, GRE key, ERSPAN session or TEID of the innermost tunnel; 0 where there is none.
    pub tunnel_id: u32,
}

const _: () = assert!(size_of::<ShuntKey>() == 44);

/// What happens to the frames of a flow that was shunted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShuntMode {
    /// They are counted and not delivered.
    Count,
    /// Their headers are delivered, cut behind the L4 header, and not counted.
    Headers,
}

/// What one direction of a shunted flow did since it was shunted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShuntCounters {
    /// Packets that were not delivered.
    pub packets: u64,
    /// Their L2 bytes on the wire.
    pub bytes: u64,
    /// Their bytes behind the innermost L3 header.
    pub l3_bytes: u64,
    /// Their bytes behind the L4 header.
    pub l4_bytes: u64,
    /// Time of the first, ns since the epoch; 0 when there is none.
    pub first_ns: u64,
    /// Time of the last, ns since the epoch.
    pub last_ns: u64,
    /// TCP sequence number of the first packet.
    pub first_seq: u32,
    /// One past the highest TCP sequence number; means nothing without flags.
    pub next_seq: u32,
    /// TCP acknowledgment number of the last packet.
    pub last_ack: u32,
    /// Packets with a window of zero.
    pub zero_windows: u32,
    /// All TCP flags seen; none where headers are not seen, as by rules of a NIC.
    pub tcp_flags: u8,
}

/// A source's ability to shunt flows. A frame is either delivered or counted, never both and never neither.
///
/// A frame with SYN, FIN or RST wakes its flow: that frame and those after it are delivered again.
pub trait Shunt: Send {
    /// From now on the flow's frames are treated so. False when there is no room; they are delivered then as before.
    fn shunt(&mut self, key: &ShuntKey, mode: ShuntMode) -> bool;

    /// What was counted since the flow was shunted, side A first; `None` when the flow is not shunted.
    fn read(&mut self, key: &ShuntKey) -> Option<[ShuntCounters; 2]>;

    /// Ends it: the flow's frames are delivered again, its counters are read for the last time and forgotten.
    fn end(&mut self, key: &ShuntKey) -> Option<[ShuntCounters; 2]>;
}
