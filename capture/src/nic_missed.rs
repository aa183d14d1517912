//! Frames that an interface's NIC dropped because there was no room for them: no queue, and no socket, has seen them.

use std::fs::File;
use std::io::{Read, Write};

use crate::interface::Interface;
use crate::{CaptureError, sys};

/// RTM_GETSTATS of linux/rtnetlink.h.
const GET_STATS: u16 = 94;
/// IFLA_STATS_LINK_64 of linux/if_link.h, and its bit in a filter.
const LINK_64: u16 = 1;
const LINK_64_BIT: u32 = 1;
/// Of the message that asks: struct nlmsghdr and struct if_stats_msg. The answer begins with the same, and a struct nlattr.
const REQUEST_BYTES: u8 = 28;
const COUNTERS_AT: usize = REQUEST_BYTES as usize + 4;
/// The place of `rx_missed_errors` in struct rtnl_link_stats64: "packets dropped by the device due to lack of buffer space".
const MISSED: usize = 15;

/// What an interface's driver says that its NIC missed, since this was made.
pub struct NicMissed {
    netlink: File,
    index: u32,
    last: u64,
    sum: u64,
}

impl NicMissed {
    /// Begins to count for an interface of the caller's network namespace.
    ///
    /// # Errors
    /// There is no such interface, or it is down; the system refuses netlink.
    pub fn new(interface: &str) -> Result<Self, CaptureError> {
        let index = Interface::find(interface)?.index;
        let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW)
            .map_err(|source| CaptureError::system("ask netlink for counters", interface, source))?;
        let mut counted = Self { netlink: File::from(socket), index, last: 0, sum: 0 };
        counted.last = counted.read(MISSED).unwrap_or_default();
        Ok(counted)
    }

    /// Frames so far. An interface that is gone missed no more.
    pub fn frames(&mut self) -> u64 {
        if let Some(now) = self.read(MISSED) {
            // Some drivers begin at zero again when they set their queues up.
            self.sum += now.checked_sub(self.last).unwrap_or(now);
            self.last = now;
        }
        self.sum
    }

    /// The number at this place of struct rtnl_link_stats64.
    fn read(&mut self, place: usize) -> Option<u64> {
        let mut request = [0; REQUEST_BYTES as usize];
        request[0] = REQUEST_BYTES;
        request[4..6].copy_from_slice(&GET_STATS.to_ne_bytes());
        request[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
        request[20..24].copy_from_slice(&self.index.to_ne_bytes());
        request[24..28].copy_from_slice(&LINK_64_BIT.to_ne_bytes());
        self.netlink.write_all(&request).ok()?;
        let mut answer = [0; 1024];
        let len = self.netlink.read(&mut answer).ok()?;
        let (head, counters) = answer.get(..len)?.split_at_checked(COUNTERS_AT)?;
        let number = |at: usize| Some(u16::from_ne_bytes(*head.get(at..)?.first_chunk()?));
        let is_answer = number(4)? == GET_STATS - 2 && number(COUNTERS_AT - 2)? == LINK_64;
        let counter = counters.get(place * 8..)?.first_chunk()?;
        is_answer.then(|| u64::from_ne_bytes(*counter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn counters_of_an_interface_are_read_at_their_places() {
        const RECEIVED_PACKETS: usize = 0;
        const RECEIVED_BYTES: usize = 2;
        let mut lo = NicMissed::new("lo").unwrap();
        let mut read = || [RECEIVED_PACKETS, RECEIVED_BYTES].map(|place| lo.read(place).unwrap());
        let [packets, bytes] = read();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(&[0; 10_000], socket.local_addr().unwrap()).unwrap();
        let [packets, bytes] = [read()[0] - packets, read()[1] - bytes];
        assert!(packets >= 1 && bytes >= packets * 20 + 10_000, "{packets} packets, {bytes} bytes");
        assert_eq!(lo.frames(), 0);
    }

    #[test]
    fn a_driver_that_begins_at_zero_again_loses_nothing() {
        let mut lo = NicMissed::new("lo").unwrap();
        (lo.last, lo.sum) = (7, 5);
        assert_eq!(lo.frames(), 5);
        (lo.index, lo.last) = (u32::MAX >> 1, 7);
        assert_eq!(lo.frames(), 5, "of an interface that is gone");
    }
}
