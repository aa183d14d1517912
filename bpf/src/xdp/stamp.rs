//! What the program writes in front of a frame (`programs/hints.h`).

/// Lies right before the frame. A field whose flag is not set holds 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// [`Stamp::MAGIC`] when the driver had room for the stamp.
    pub magic: u32,
    /// Symmetric hash of the innermost packet; see [`Stamp::FLOW_HASH`].
    pub flow_hash: u32,
    /// When the program saw the frame, on CLOCK_BOOTTIME, in nanoseconds.
    pub boot_ns: u64,
    /// When the NIC received the frame, on the NIC's clock, in nanoseconds; see [`Stamp::RX_TIME`].
    pub rx_ns: u64,
    /// RSS hash that the NIC computed; see [`Stamp::RX_HASH`]. With [`Stamp::CUT`], the frame's length on the wire.
    pub rx_hash: u32,
    /// 802.1Q tag control information that the NIC stripped from the frame; see [`Stamp::VLAN`].
    pub vlan_tci: u16,
    /// Which of the fields hold something.
    pub flags: u16,
}

impl Stamp {
    /// Tells a stamp from what an earlier frame left.
    pub const MAGIC: u32 = 0x7773_7032;
    /// `flow_hash` is set.
    pub const FLOW_HASH: u16 = 1;
    /// `rx_ns` is set.
    pub const RX_TIME: u16 = 2;
    /// `rx_hash` is set.
    pub const RX_HASH: u16 = 4;
    /// `vlan_tci` is set.
    pub const VLAN: u16 = 8;
    /// The frame was cut behind its headers; `rx_hash` holds its length on the wire.
    pub const CUT: u16 = 16;

    /// The length that the frame had on the wire, if it was cut.
    pub fn cut_from(&self) -> Option<u32> {
        self.has(Self::CUT).then_some(self.rx_hash)
    }

    /// True when all of `flags` are set.
    pub fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }
}

const _: () = assert!(size_of::<Stamp>() == 32);
