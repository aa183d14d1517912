//! The ring that events come through.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use wirespan_event::{Event, Header};

use super::object::{Object, Result};
use crate::BpfError;

/// More than that are not handed on at once, so that the caller gets to do other things.
const EVENTS_AT_ONCE: usize = 1 << 16;

pub(super) struct Ring {
    ring: RingBuf<MapData>,
    /// Tells when the kernel wakes, not whether anything is in the ring.
    epoll: OwnedFd,
    pub events: u64,
    pub bytes: u64,
    pub malformed: u64,
}

impl Ring {
    pub fn take(object: &mut Object) -> Result<Self> {
        let ring: RingBuf<MapData> = object.map("events")?;
        let epoll = wakeups(ring.as_raw_fd()).map_err(|error| BpfError::map(&error))?;
        Ok(Self { ring, epoll, events: 0, bytes: 0, malformed: 0 })
    }

    pub fn wait(&self, time: Duration) -> io::Result<()> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let time = libc::c_int::try_from(time.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: there is room for one event.
        if unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), &raw mut event, 1, time) } >= 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        }
    }

    pub fn drain(&mut self, each: &mut dyn FnMut(Event<'_>)) -> usize {
        let mut handed_on = 0;
        while handed_on < EVENTS_AT_ONCE
            && let Some(item) = self.ring.next()
        {
            let Some((header, payload)) = parse(&item) else {
                self.malformed += 1;
                continue;
            };
            handed_on += 1;
            self.bytes += item.len() as u64;
            each(Event { header: &header, payload });
        }
        self.events += handed_on as u64;
        handed_on
    }
}

fn parse(record: &[u8]) -> Option<(Header, &[u8])> {
    let header = Header::read(record)?;
    let payload = record.get(size_of::<Header>()..)?.get(..header.captured as usize)?;
    Some((header, payload))
}

/// An epoll that a ring's wake-ups end, each once.
fn wakeups(ring: i32) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is new.
    let epoll = unsafe {
        match libc::epoll_create1(libc::EPOLL_CLOEXEC) {
            -1 => return Err(io::Error::last_os_error()),
            fd => OwnedFd::from_raw_fd(fd),
        }
    };
    let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
    // SAFETY: the event lives as long as the call.
    match unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, ring, &raw mut event) } {
        0 => Ok(epoll),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_claims_more_than_it_has_is_none() {
        let header = Header { captured: 3, ..Header::default() };
        let mut record = header.as_bytes().to_vec();
        record.extend(*b"abcd");
        assert_eq!(parse(&record).map(|(_, payload)| payload), Some(&b"abc"[..]));
        assert_eq!(parse(&record[..record.len() - 2]), None);
        assert_eq!(parse(&record[..10]), None);
    }
}
