//! What the kernel says of a network interface.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use wirespan_frame::LinkType;

use crate::{CaptureError, sys};

/// `ETHTOOL_GCHANNELS` of linux/ethtool.h.
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// A network interface that exists and is up.
#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub name: String,
    pub index: u32,
    /// ARPHRD_* of linux/if_arp.h.
    hardware: u16,
    mtu: usize,
}

impl Interface {
    /// Looks an interface up in the caller's network namespace.
    pub fn find(name: &str) -> Result<Self, CaptureError> {
        let system = |source| CaptureError::system("look up the interface", name, source);
        let Some(index) = index_of(name) else {
            return Err(CaptureError::UnknownInterface {
                interface: name.to_owned(),
                known: names().join(", "),
            });
        };
        let flags = request(name, libc::SIOCGIFFLAGS).map_err(system)?;
        // SAFETY: SIOCGIFFLAGS fills in the flags.
        let flags = i32::from(unsafe { flags.ifr_ifru.ifru_flags });
        if flags & libc::IFF_UP == 0 {
            return Err(CaptureError::InterfaceDown { interface: name.to_owned() });
        }
        let address = request(name, libc::SIOCGIFHWADDR).map_err(system)?;
        // SAFETY: SIOCGIFHWADDR fills in the hardware address.
        let hardware = unsafe { address.ifr_ifru.ifru_hwaddr.sa_family };
        let mtu = request(name, libc::SIOCGIFMTU).map_err(system)?;
        // SAFETY: SIOCGIFMTU fills in the MTU.
        let mtu = usize::try_from(unsafe { mtu.ifr_ifru.ifru_mtu }).unwrap_or(0);
        Ok(Self { name: name.to_owned(), index, hardware, mtu })
    }

    pub fn is_loopback(&self) -> bool {
        self.hardware == libc::ARPHRD_LOOPBACK
    }

    /// Bytes of the longest frame that can be received: with an Ethernet header and two VLAN tags.
    pub fn longest_frame(&self) -> usize {
        self.mtu + 14 + 8
    }

    /// What the first byte of a frame is. Whatever has no Ethernet header is captured from its IP header on.
    pub fn link_type(&self) -> LinkType {
        match self.hardware {
            libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => LinkType::Ethernet,
            _ => LinkType::RawIp,
        }
    }

    /// Makes the interface promiscuous as long as this packet socket is open.
    pub fn make_promiscuous(&self, packet_socket: BorrowedFd<'_>) -> Result<(), CaptureError> {
        let mut membership: libc::packet_mreq = sys::zeroed();
        membership.mr_ifindex = self.index as libc::c_int;
        membership.mr_type = libc::PACKET_MR_PROMISC as u16;
        sys::set_option(packet_socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)
            .map_err(|source| CaptureError::system("turn promiscuous mode on", &self.name, source))
    }

    /// A socket that receives nothing and keeps the interface promiscuous.
    pub fn hold_promiscuous(&self) -> Result<OwnedFd, CaptureError> {
        let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW)
            .map_err(|source| CaptureError::system("open a packet socket", &self.name, source))?;
        self.make_promiscuous(socket.as_fd())?;
        Ok(socket)
    }

    /// Receive queues in use; a driver that does not tell has one. An XDP program may bring others.
    pub fn rx_queues(&self) -> u32 {
        let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
        let mut request = named_request(&self.name);
        request.ifr_ifru.ifru_data = ptr::from_mut(&mut channels).cast();
        let Ok(socket) = sys::socket(libc::AF_INET, libc::SOCK_DGRAM) else { return 1 };
        // SAFETY: ETHTOOL_GCHANNELS writes one Channels, to which the request points.
        let told = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &mut request) } == 0;
        if told { (channels.rx + channels.combined).max(1) } else { 1 }
    }

    /// False once the interface was removed.
    pub fn exists(&self) -> bool {
        index_of(&self.name) == Some(self.index)
    }
}

fn index_of(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a string that ends in zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

fn names() -> Vec<String> {
    let mut names = Vec::new();
    // SAFETY: gives an array that ends in an entry with index 0, or null.
    let entries = unsafe { libc::if_nameindex() };
    if entries.is_null() {
        return names;
    }
    let mut entry = entries;
    // SAFETY: the end is not passed, and the names are strings that end in zero.
    unsafe {
        while (*entry).if_index != 0 {
            names.push(CStr::from_ptr((*entry).if_name).to_string_lossy().into_owned());
            entry = entry.add(1);
        }
        libc::if_freenameindex(entries);
    }
    names
}

/// A request about an interface that carries its name and nothing else yet.
fn named_request(name: &str) -> libc::ifreq {
    // SAFETY: integers and a pointer, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte is left for the zero at the end.
    let longest = libc::IFNAMSIZ - 1;
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(longest)) {
        *to = from as libc::c_char;
    }
    request
}

fn request(name: &str, code: libc::c_ulong) -> io::Result<libc::ifreq> {
    let mut request = named_request(name);
    let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM)?;
    // SAFETY: these requests read and write one ifreq.
    sys::check(unsafe { libc::ioctl(socket.as_raw_fd(), code as _, &mut request) })?;
    Ok(request)
}

/// `struct ethtool_channels` of linux/ethtool.h.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_interface_is_named_beside_those_that_exist() {
        let error = Interface::find("no such one").unwrap_err().to_string();
        assert!(error.starts_with("there is no interface named no such one; choose one of: "), "{error}");
        assert!(error.contains("lo"));
    }
}
