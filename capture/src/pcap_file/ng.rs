//! The pcapng format (draft-ietf-opsawg-pcapng).

use wirespan_frame::{Descriptor, Hints, LinkType};

use super::order::Order;
use super::window::Window;
use super::{BATCH_FRAMES, FRAME_BYTES_MAX, Ports, Step, UnreadableCounts};
use crate::{Unreadable, link_type};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const VERSION_MAJOR: u16 = 1;

/// Type and length before the body, the length once more behind it.
const BLOCK_HEADER_BYTES: usize = 8;
const BLOCK_FRAME_BYTES: usize = 12;
/// Section headers, interface descriptions and packets fit in this; a longer block is passed over.
const BLOCK_BYTES_MAX: usize = FRAME_BYTES_MAX as usize + 64 * 1024;
/// So many interfaces can be told apart by a descriptor's port.
const INTERFACES_MAX: usize = u16::MAX as usize;

const OPTION_END: u16 = 0;
const OPTION_NAME: u16 = 2;
const OPTION_DESCRIPTION: u16 = 3;
const OPTION_TSRESOL: u16 = 9;
const OPTION_TSOFFSET: u16 = 14;

/// The section that is being read.
pub(super) struct Capture {
    order: Order,
    /// By their numbers in the section; `None` for one whose block cannot be read, whose number is taken all the same.
    interfaces: Vec<Option<Interface>>,
    /// Interfaces of earlier sections: ports count on.
    first_port: usize,
}

impl Default for Capture {
    fn default() -> Self {
        Self { order: Order::Little, interfaces: Vec::new(), first_port: 0 }
    }
}

struct Interface {
    link: LinkType,
    snap_len: u32,
    clock: Clock,
    port: u16,
}

/// What an interface description says beside its fields.
#[derive(Default)]
struct Options<'a> {
    /// Such as `eth0`.
    name: Option<&'a [u8]>,
    description: Option<&'a [u8]>,
    clock: Clock,
}

/// A packet block as it is taken apart.
struct Packet<'a> {
    interface: u32,
    ticks: u64,
    len: u32,
    wire_len: u32,
    data: &'a [u8],
}

impl Capture {
    /// True when `bytes` begin with a section header block.
    pub fn recognises(bytes: &[u8]) -> bool {
        bytes.starts_with(&SECTION_HEADER.to_be_bytes())
    }

    /// Describes the packets in the window until the batch is full or the window's end cuts a block.
    pub fn read(
        &mut self,
        window: &mut Window,
        descriptors: &mut Vec<Descriptor>,
        ports: &Ports,
        unreadable: &mut UnreadableCounts,
    ) -> Step {
        let first = window.position();
        let mut rest = window.unread();
        let unread = rest.len();
        let step = loop {
            if descriptors.len() == BATCH_FRAMES {
                break Step::BatchFull;
            }
            let Some([kind, stated_len]) = self.order.u32s(rest) else {
                break Step::Need(BLOCK_HEADER_BYTES);
            };
            if kind == SECTION_HEADER {
                // The length can only be read once the byte order is known.
                let Some(mark) = rest.get(BLOCK_HEADER_BYTES..).and_then(<[u8]>::first_chunk) else {
                    break Step::Need(BLOCK_FRAME_BYTES);
                };
                let Some(order) = byte_order(*mark) else {
                    break Step::Lost(Unreadable::UnknownSection);
                };
                if order != self.order {
                    self.order = order;
                    continue;
                }
            }
            let Some(block_bytes) = block_bytes(stated_len) else {
                break Step::Lost(Unreadable::AbsurdLength);
            };
            if block_bytes > BLOCK_BYTES_MAX {
                if !descriptors.is_empty() {
                    break Step::BatchFull;
                }
                if let Some(reason) = oversized(kind) {
                    unreadable.count(reason);
                }
                if kind == INTERFACE_DESCRIPTION {
                    self.count_interface(None);
                }
                break Step::Skip(block_bytes as u64);
            }
            let Some((block, tail)) = rest.split_at_checked(block_bytes) else {
                break Step::Need(block_bytes);
            };
            let body = block.get(BLOCK_HEADER_BYTES..block_bytes - 4).unwrap_or_default();
            let offset = first + (unread - rest.len()) + BLOCK_HEADER_BYTES;
            match self.read_block(kind, body, offset, ports) {
                Ok(Some(descriptor)) => descriptors.push(descriptor),
                Ok(None) => {}
                Err(Unreadable::UnknownSection) => break Step::Lost(Unreadable::UnknownSection),
                Err(reason) => unreadable.count(reason),
            }
            rest = tail;
        };
        let consumed = unread - rest.len();
        window.consume(consumed);
        step
    }

    /// Takes in one block; `offset` is where its body lies in the region.
    fn read_block(
        &mut self,
        kind: u32,
        body: &[u8],
        offset: usize,
        ports: &Ports,
    ) -> Result<Option<Descriptor>, Unreadable> {
        let packet = match kind {
            ENHANCED_PACKET => self.enhanced_packet(body),
            SIMPLE_PACKET => self.simple_packet(body)?,
            OBSOLETE_PACKET => self.obsolete_packet(body),
            INTERFACE_DESCRIPTION => {
                let interface = self.interface(body, ports);
                let read = if interface.is_some() { Ok(None) } else { Err(Unreadable::MalformedBlock) };
                self.count_interface(interface);
                return read;
            }
            SECTION_HEADER => return self.begin_section(body).map(|()| None),
            _ => return Ok(None),
        };
        let packet = packet.ok_or(Unreadable::MalformedBlock)?;
        let interface = self.numbered(packet.interface as usize)?;
        if packet.len as usize > packet.data.len() {
            return Err(Unreadable::MalformedBlock);
        }
        if packet.len > FRAME_BYTES_MAX {
            return Err(Unreadable::OversizedFrame);
        }
        Ok(Some(Descriptor {
            offset: offset + (body.len() - packet.data.len()),
            len: packet.len,
            wire_len: super::plausible_wire_len(packet.wire_len, packet.len),
            ts_ns: interface.clock.nanoseconds(packet.ticks),
            link: interface.link,
            port: interface.port,
            hints: Hints::default(),
        }))
    }

    /// Section 4.3 of the draft.
    fn enhanced_packet<'a>(&self, body: &'a [u8]) -> Option<Packet<'a>> {
        let [interface, high, low, len, wire_len] = self.order.u32s(body)?;
        Some(Packet { interface, ticks: ticks(high, low), len, wire_len, data: body.get(20..)? })
    }

    /// Section 4.4: no time, always of the first interface, cut at its snap length.
    fn simple_packet<'a>(&self, body: &'a [u8]) -> Result<Option<Packet<'a>>, Unreadable> {
        let interface = self.numbered(0)?;
        let (Some([wire_len]), Some(data)) = (self.order.u32s(body), body.get(4..)) else {
            return Ok(None);
        };
        let snap_len = if interface.snap_len == 0 { u32::MAX } else { interface.snap_len };
        let len = wire_len.min(snap_len).min(data.len() as u32);
        Ok(Some(Packet { interface: 0, ticks: 0, len, wire_len, data }))
    }

    /// Appendix A of the draft: what early writers used in place of the enhanced packet.
    fn obsolete_packet<'a>(&self, body: &'a [u8]) -> Option<Packet<'a>> {
        let interface = u32::from(self.order.u16(*body.first_chunk()?));
        let [_, high, low, len, wire_len] = self.order.u32s(body)?;
        Some(Packet { interface, ticks: ticks(high, low), len, wire_len, data: body.get(20..)? })
    }

    fn begin_section(&mut self, body: &[u8]) -> Result<(), Unreadable> {
        let version = body.get(4..).and_then(<[u8]>::first_chunk).map(|major| self.order.u16(*major));
        if version != Some(VERSION_MAJOR) {
            return Err(Unreadable::UnknownSection);
        }
        self.first_port = self.first_port.saturating_add(self.interfaces.len()).min(INTERFACES_MAX);
        self.interfaces.clear();
        Ok(())
    }

    /// The interface that a packet names.
    fn numbered(&self, number: usize) -> Result<&Interface, Unreadable> {
        self.interfaces.get(number).and_then(Option::as_ref).ok_or(Unreadable::UnknownInterface)
    }

    /// What a description says of the next interface.
    fn interface(&self, body: &[u8], ports: &Ports) -> Option<Interface> {
        let link = link_type::from_number(self.order.u16(*body.first_chunk()?));
        let [_, snap_len] = self.order.u32s(body)?;
        let Options { clock, name, description } = self.options(body.get(8..).unwrap_or_default());
        let port = ports.get(self.first_port + self.interfaces.len(), name.into_iter().chain(description));
        Some(Interface { link, snap_len, clock, port })
    }

    /// Gives an interface the next number.
    fn count_interface(&mut self, interface: Option<Interface>) {
        if self.interfaces.len() < INTERFACES_MAX {
            self.interfaces.push(interface);
        }
    }

    /// Section 4.2: what follows the fields of an interface description.
    fn options<'a>(&self, mut options: &'a [u8]) -> Options<'a> {
        let mut told = Options::default();
        while let Some(([c0, c1, l0, l1], rest)) = options.split_first_chunk() {
            let code = self.order.u16([*c0, *c1]);
            let len = usize::from(self.order.u16([*l0, *l1]));
            let Some(value) = rest.get(..len) else { break };
            match code {
                OPTION_END => break,
                OPTION_NAME => told.name = Some(value),
                OPTION_DESCRIPTION => told.description = Some(value),
                OPTION_TSRESOL => {
                    if let Some(resolution) = value.first() {
                        told.clock.resolution = TickLength::from_option(*resolution);
                    }
                }
                OPTION_TSOFFSET => {
                    if let Some(seconds) = value.first_chunk() {
                        told.clock.offset_seconds = self.order.i64(*seconds);
                    }
                }
                _ => {}
            }
            options = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        told
    }
}

fn byte_order(mark: [u8; 4]) -> Option<Order> {
    [Order::Little, Order::Big].into_iter().find(|order| order.u32(mark) == BYTE_ORDER_MAGIC)
}

/// The whole length of a block. Some writers leave the padding out; less than an empty block's it cannot be.
fn block_bytes(stated: u32) -> Option<usize> {
    let bytes = usize::try_from(stated).ok()?.checked_next_multiple_of(4)?;
    (bytes >= BLOCK_FRAME_BYTES).then_some(bytes)
}

/// What is lost with a block that is too long to hold.
fn oversized(kind: u32) -> Option<Unreadable> {
    match kind {
        OBSOLETE_PACKET | SIMPLE_PACKET | ENHANCED_PACKET => Some(Unreadable::OversizedFrame),
        SECTION_HEADER | INTERFACE_DESCRIPTION => Some(Unreadable::MalformedBlock),
        _ => None,
    }
}

fn ticks(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// How an interface's time stamps count.
#[derive(Clone, Copy, Default)]
struct Clock {
    resolution: TickLength,
    offset_seconds: i64,
}

#[derive(Clone, Copy)]
enum TickLength {
    /// So many nanoseconds.
    Nanoseconds(u64),
    /// So many ticks in a nanosecond.
    PerNanosecond(u64),
    /// A second is two to this power.
    PowerOfTwo(u32),
}

impl Default for TickLength {
    /// Without an option, time stamps are in microseconds.
    fn default() -> Self {
        Self::Nanoseconds(1_000)
    }
}

impl TickLength {
    /// `if_tsresol`: a negative power of ten, or of two when the upper bit is set.
    fn from_option(value: u8) -> Self {
        let power = u32::from(value & 0x7f);
        if value & 0x80 != 0 {
            Self::PowerOfTwo(power)
        } else if power <= 9 {
            Self::Nanoseconds(10u64.pow(9 - power))
        } else {
            Self::PerNanosecond(10u64.saturating_pow(power - 9))
        }
    }
}

impl Clock {
    /// Nanoseconds since the epoch; what lies outside of 64 bits is clamped.
    fn nanoseconds(self, ticks: u64) -> u64 {
        let since_offset = match self.resolution {
            TickLength::Nanoseconds(length) => ticks.saturating_mul(length),
            TickLength::PerNanosecond(count) => ticks / count.max(1),
            TickLength::PowerOfTwo(power) => {
                let scaled = (u128::from(ticks) * 1_000_000_000).checked_shr(power).unwrap_or(0);
                u64::try_from(scaled).unwrap_or(u64::MAX)
            }
        };
        let offset = self.offset_seconds.saturating_mul(1_000_000_000);
        since_offset.saturating_add_signed(offset)
    }
}
