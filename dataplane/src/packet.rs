//! What decoding makes of a frame: the innermost packet, ready for the flow table.

use wirespan_frame::Frame;
pub use wirespan_headers::addresses::{Addresses, to_ip};
pub use wirespan_headers::transport::Tcp;
use wirespan_records::{L4Protocol, Tunnel};

/// TCP flags, RFC 9293 section 3.1.
pub mod flags {
    /// No more data from sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push function.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment field is significant.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer is significant.
    pub const URG: u8 = 0x20;
}

/// The innermost packet of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// When the frame was captured (of the last fragment, when put together), ns since the epoch.
    pub ts_ns: u64,
    /// L2 bytes on the wire, of all fragments together.
    pub wire_len: u32,
    /// Innermost addresses.
    pub addresses: Addresses,
    /// What the innermost IP packet carries.
    pub l4: L4Protocol,
    /// Source port; the identifier for ICMP echo; else 0.
    pub src_port: u16,
    /// Destination port; the identifier for ICMP echo; else 0.
    pub dst_port: u16,
    /// ICMP type, else 0.
    pub icmp_type: u8,
    /// TCP header fields.
    pub tcp: Tcp,
    /// Outermost VLAN id of the innermost Ethernet frame.
    pub vlan: Option<u16>,
    /// Innermost tunnel.
    pub tunnel: Option<Tunnel>,
    /// The tap that saw it; [`wirespan_records::NO_TAP`] is none.
    pub tap: u16,
    /// Bytes behind the innermost L3 header, by the IP header's length.
    pub l3_len: u32,
    /// Bytes behind the L4 header, by the IP header's length; more than `payload` holds when the capture cut the packet.
    pub l4_len: u32,
    /// As `l4_len`, but never more than the frame had on the wire: an IP header may claim more than there was.
    pub l4_wire: u32,
    /// The captured bytes behind the L4 header, padding left out.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// The packet as borrowed from its frame alone, so that it can be kept while further frames are decoded; none when it
    /// was put together from several frames and lies elsewhere.
    #[inline]
    pub(crate) fn lent_by<'f>(&self, frame: &Frame<'f>) -> Option<Packet<'f>> {
        let payload = if self.payload.is_empty() {
            &[]
        } else {
            let offset = (self.payload.as_ptr() as usize).checked_sub(frame.data.as_ptr() as usize)?;
            frame.data.get(offset..)?.get(..self.payload.len())?
        };
        let Packet { ts_ns, wire_len, addresses, l4, src_port, dst_port, icmp_type, .. } = *self;
        let Packet { tcp, vlan, tunnel, tap, l3_len, l4_len, l4_wire, .. } = *self;
        Some(Packet {
            ts_ns,
            wire_len,
            addresses,
            l4,
            src_port,
            dst_port,
            icmp_type,
            tcp,
            vlan,
            tunnel,
            tap,
            l3_len,
            l4_len,
            l4_wire,
            payload,
        })
    }
}
