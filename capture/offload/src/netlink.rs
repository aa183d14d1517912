//! A request and its answers over netlink (RFC 3549, Documentation/userspace-api/netlink/intro.rst).

use crate::attr::{self, Attrs};
use crate::kernel::{Bus, Kernel};
use crate::refusal::Refusal;
use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;

/// Generic netlink's own family, which knows the others' numbers.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// Speaks netlink through a kernel: numbers requests and waits until they are acknowledged.
pub struct Netlink {
    kernel: Box<dyn Kernel>,
    sequence: u32,
    /// Families that were asked for, and their numbers where the kernel has them.
    families: Vec<(&'static str, Result<u16, Refusal>)>,
}

impl Netlink {
    pub fn new(kernel: Box<dyn Kernel>) -> Self {
        Self { kernel, sequence: 0, families: Vec::new() }
    }

    /// For everything that is not netlink.
    pub fn kernel(&mut self) -> &mut dyn Kernel {
        &mut *self.kernel
    }

    /// Sends a request; gives the payloads that came before the acknowledgement.
    pub fn request(
        &mut self,
        bus: Bus,
        kind: u16,
        flags: u16,
        payload: &[u8],
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.length = u32::try_from(HEADER + payload.len()).unwrap_or(u32::MAX);
        header.message_type = kind;
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut message = vec![0; HEADER];
        header.emit(&mut message);
        message.extend_from_slice(payload);
        self.kernel.send(bus, &message).map_err(Refusal::from)?;
        let mut answers = Vec::new();
        loop {
            let datagram = self.kernel.receive(bus).map_err(Refusal::from)?;
            if let Some(end) = collect(&datagram, self.sequence, &mut answers) {
                return end.map(|()| answers);
            }
        }
    }

    /// Sends a request to a family of generic netlink; gives the attributes of each answer.
    pub fn generic(
        &mut self,
        family: &'static str,
        command: u8,
        attrs: &Attrs,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let id = self.family(family)?;
        self.generic_to(id, command, attrs)
    }

    fn generic_to(&mut self, id: u16, command: u8, attrs: &Attrs) -> Result<Vec<Vec<u8>>, Refusal> {
        // struct genlmsghdr: command, version, two reserved bytes
        let mut payload = vec![command, 1, 0, 0];
        payload.extend_from_slice(attrs.as_bytes());
        let answers = self.request(Bus::Generic, id, 0, &payload)?;
        Ok(answers.into_iter().filter_map(|answer| Some(answer.get(4..)?.to_vec())).collect())
    }

    fn family(&mut self, name: &'static str) -> Result<u16, Refusal> {
        if let Some((_, id)) = self.families.iter().find(|(known, _)| *known == name) {
            return id.clone();
        }
        let ask = Attrs::default().text(CTRL_ATTR_FAMILY_NAME, name);
        let id = self.generic_to(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &ask).and_then(|answers| {
            let id = answers.first().and_then(|answer| attr::find(answer, CTRL_ATTR_FAMILY_ID));
            id.and_then(|id| Some(u16::from_ne_bytes(*id.first_chunk()?))).ok_or_else(Refusal::nonsense)
        });
        self.families.push((name, id.clone()));
        id
    }
}

/// Takes the messages of a datagram that answer request `sequence`; tells when the answer is complete.
pub fn collect(datagram: &[u8], sequence: u32, answers: &mut Vec<Vec<u8>>) -> Option<Result<(), Refusal>> {
    let mut rest = datagram;
    while let Some((message, next)) = first(rest) {
        rest = next;
        if message.sequence_number() != sequence {
            continue;
        }
        match message.message_type() {
            NLMSG_DONE | NLMSG_ERROR => return Some(verdict(message.flags(), message.payload())),
            _ => answers.push(message.payload().to_vec()),
        }
    }
    // Bytes that are no message will not become one: the answer cannot be understood.
    (!rest.is_empty()).then(|| Err(Refusal::nonsense()))
}

/// The first message, and what is behind it.
fn first(bytes: &[u8]) -> Option<(NetlinkBuffer<&[u8]>, &[u8])> {
    let message = NetlinkBuffer::new_checked(bytes).ok()?;
    let length = usize::try_from(message.length()).ok()?;
    Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// `struct nlmsgerr`: a negative error number or 0, the request's header, and the kernel's words when it has some.
fn verdict(flags: u16, payload: &[u8]) -> Result<(), Refusal> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
    if code == 0 {
        return Ok(());
    }
    let request = payload.get(4..).and_then(attr::as_u32).and_then(|length| usize::try_from(length).ok());
    let echoed = if flags & NLM_F_CAPPED != 0 { HEADER } else { request.unwrap_or(HEADER) };
    let words = (flags & NLM_F_ACK_TLVS != 0)
        .then(|| payload.get(4_usize.saturating_add(echoed.next_multiple_of(4))..))
        .flatten()
        .and_then(|attrs| attr::find(attrs, NLMSGERR_ATTR_MSG))
        .map(attr::as_text);
    Err(Refusal::new(code.saturating_neg(), words))
}
