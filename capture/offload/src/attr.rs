//! Netlink attributes (linux/netlink.h, `struct nlattr`), read and written with netlink-packet-core.

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED, NLA_HEADER_SIZE, NlasIterator};

/// A list of attributes that grows as they are put in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attrs(Vec<u8>);

impl Attrs {
    /// An attribute with these bytes; one longer than 65,531 bytes cannot be told and is left out.
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        if value.len() > usize::from(u16::MAX) - NLA_HEADER_SIZE {
            return self;
        }
        let attr = DefaultNla::new(kind, value.to_vec());
        let start = self.0.len();
        self.0.resize(start + attr.buffer_len(), 0);
        if let Some(room) = self.0.get_mut(start..) {
            attr.emit(room);
        }
        self
    }

    /// An attribute without a value, which says yes by being there.
    pub fn flag(self, kind: u16) -> Self {
        self.bytes(kind, &[])
    }

    /// An integer of 8 bits.
    pub fn u8(self, kind: u16, value: u8) -> Self {
        self.bytes(kind, &[value])
    }

    /// An integer of 16 bits in network byte order.
    pub fn be16(self, kind: u16, value: u16) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// An integer of 32 bits.
    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Text, ended by a zero byte.
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// A list of attributes in an attribute.
    pub fn nest(self, kind: u16, inner: &Attrs) -> Self {
        self.bytes(kind | NLA_F_NESTED, &inner.0)
    }

    /// The list as it is sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The attributes of a received list; it ends where the bytes make no sense.
pub fn each(list: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(list).map_while(Result::ok).filter_map(|attr| {
        let (kind, end) = (attr.kind(), usize::from(attr.length()));
        Some((kind, attr.into_inner().get(NLA_HEADER_SIZE..end)?))
    })
}

/// The value of the first attribute of a kind.
pub fn find(list: &[u8], kind: u16) -> Option<&[u8]> {
    each(list).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// An integer of 32 bits, when the bytes hold one.
pub fn as_u32(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*value.first_chunk()?))
}

/// An integer of 64 bits, when the bytes hold one.
pub fn as_u64(value: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(*value.first_chunk()?))
}

/// An integer of 16 bits in network byte order, when the bytes hold one.
pub fn as_be16(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*value.first_chunk()?))
}

/// Text up to its zero byte; what is no UTF-8 is replaced.
pub fn as_text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// The 32-bit integer of the first attribute of a kind.
pub fn find_u32(list: &[u8], kind: u16) -> Option<u32> {
    find(list, kind).and_then(as_u32)
}
