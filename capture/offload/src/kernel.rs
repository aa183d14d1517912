//! The kernel as this crate speaks to it: netlink, the ethtool ioctl, sysfs, and one socket option.
//!
//! It is a trait so that a recorded conversation can take the kernel's place.

use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A netlink protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// NETLINK_ROUTE: links and traffic control.
    Route,
    /// NETLINK_GENERIC: ethtool and netdev.
    Generic,
}

/// An ioctl on an interface, whose `struct ifreq` points to data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ioctl {
    /// SIOCETHTOOL; the data begins with the number of the ethtool command.
    Ethtool,
    /// SIOCGHWTSTAMP with `struct hwtstamp_config`.
    GetTimestamps,
    /// SIOCSHWTSTAMP with `struct hwtstamp_config`.
    SetTimestamps,
}

/// What keeps an interface promiscuous until it is dropped. The kernel ends it by itself when the process dies.
#[derive(Debug)]
pub struct Promiscuous(#[allow(dead_code, reason = "held, never read")] Option<OwnedFd>);

impl Promiscuous {
    /// Stands for one in a recorded conversation.
    #[cfg(test)]
    pub(crate) const RECORDED: Self = Self(None);
}

/// Sends requests and gives answers; knows nothing of what they mean.
pub trait Kernel: Send {
    /// Sends one netlink message.
    fn send(&mut self, bus: Bus, message: &[u8]) -> io::Result<()>;

    /// Receives the next datagram, which holds one message or several.
    fn receive(&mut self, bus: Bus) -> io::Result<Vec<u8>>;

    /// Makes an ioctl whose answer overwrites `data`.
    fn ioctl(&mut self, request: Ioctl, interface: &str, data: &mut [u8]) -> io::Result<()>;

    /// Reads a file or a symbolic link's target, of sysfs or procfs, without the white space around it.
    fn read(&mut self, path: &str) -> io::Result<String>;

    /// The names in a directory of sysfs, sorted.
    fn list(&mut self, path: &str) -> io::Result<Vec<String>>;

    /// Writes a file of sysfs.
    fn write(&mut self, path: &str, value: &str) -> io::Result<()>;

    /// Keeps the interface promiscuous: counted by the kernel, so it takes nothing from others who want the same.
    fn promiscuous(&mut self, index: u32) -> io::Result<Promiscuous>;
}

/// The running kernel, in the network namespace of the thread that connects.
pub struct Live {
    route: Socket,
    generic: Socket,
    /// Any socket will do for an ioctl on an interface.
    control: OwnedFd,
}

impl Live {
    /// Opens the sockets; needs no privilege.
    pub fn connect() -> io::Result<Self> {
        Ok(Self {
            route: netlink(netlink_sys::protocols::NETLINK_ROUTE)?,
            generic: netlink(netlink_sys::protocols::NETLINK_GENERIC)?,
            control: socket(libc::AF_INET, libc::SOCK_DGRAM)?,
        })
    }

    fn bus(&self, bus: Bus) -> &Socket {
        match bus {
            Bus::Route => &self.route,
            Bus::Generic => &self.generic,
        }
    }
}

/// A netlink socket whose refusals come with the kernel's own words (extended acknowledgements).
fn netlink(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_ext_ack(true)?;
    Ok(socket)
}

impl Kernel for Live {
    fn send(&mut self, bus: Bus, message: &[u8]) -> io::Result<()> {
        self.bus(bus).send(message, 0).map(drop)
    }

    fn receive(&mut self, bus: Bus) -> io::Result<Vec<u8>> {
        Ok(self.bus(bus).recv_from_full()?.0)
    }

    fn ioctl(&mut self, request: Ioctl, interface: &str, data: &mut [u8]) -> io::Result<()> {
        // linux/sockios.h
        let number: libc::c_ulong = match request {
            Ioctl::Ethtool => 0x8946,
            Ioctl::SetTimestamps => 0x89b0,
            Ioctl::GetTimestamps => 0x89b1,
        };
        // SAFETY: a structure of integers and pointers, for which zero is valid.
        let mut ifreq: libc::ifreq = unsafe { std::mem::zeroed() };
        let name = interface.as_bytes();
        if name.len() >= ifreq.ifr_name.len() {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        for (to, from) in ifreq.ifr_name.iter_mut().zip(name) {
            *to = libc::c_char::from_ne_bytes([*from]);
        }
        ifreq.ifr_ifru.ifru_data = data.as_mut_ptr().cast();
        // SAFETY: the data lives until the call returns, and callers size it as the command demands.
        let result = unsafe { libc::ioctl(self.control.as_raw_fd(), number as _, &mut ifreq) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn read(&mut self, path: &str) -> io::Result<String> {
        match std::fs::symlink_metadata(path)?.is_symlink() {
            true => Ok(std::fs::read_link(path)?.to_string_lossy().into_owned()),
            false => Ok(std::fs::read_to_string(path)?.trim().to_owned()),
        }
    }

    fn list(&mut self, path: &str) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(path)?;
        let mut names: Vec<String> =
            entries.map_while(Result::ok).map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }

    fn write(&mut self, path: &str, value: &str) -> io::Result<()> {
        std::fs::write(path, value)
    }

    fn promiscuous(&mut self, index: u32) -> io::Result<Promiscuous> {
        // Protocol 0: the socket receives nothing.
        let fd = socket(libc::AF_PACKET, libc::SOCK_RAW)?;
        let request = libc::packet_mreq {
            mr_ifindex: index.try_into().map_err(io::Error::other)?,
            mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        // SAFETY: the kernel reads as many bytes of a live structure as it has.
        let result = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                std::ptr::from_ref(&request).cast(),
                size_of_val(&request) as libc::socklen_t,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(Promiscuous(Some(fd))) }
    }
}

fn socket(domain: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
