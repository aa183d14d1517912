//! The fixed part of an event: `struct event` of `bpf/programs/event.h`, field by field.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wirespan_records::Endpoint;

/// An enumeration that is found by its numbers.
macro_rules! numbered {
    ($(#[$about:meta])* pub enum $name:ident: $number:ty { $($(#[$of:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$about])*
        pub enum $name {
            $($(#[$of])* $variant = $value,)+
        }

        impl $name {
            /// `None` for a number that this version does not know.
            fn of(number: $number) -> Option<Self> {
                match number {
                    $($value => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

numbered! {
    /// What happened.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[repr(u8)]
    pub enum Kind: u8 {
        /// Bytes went through a socket or a TLS library call.
        Data = 1,
        /// `connect` or `accept` succeeded, or goes on, on this thread.
        Open = 2,
        /// The connection is over.
        Close = 3,
        /// This thread made `other_tgid`/`other_tid`.
        Fork = 4,
        /// This process is another program now.
        Exec = 5,
        /// This thread ended; the process, when it is the first thread.
        Exit = 6,
        /// This thread woke `other_tid` of its own process.
        Wake = 7,
        /// Bytes went through a socket without a traced system call: io_uring.
        Socket = 8,
        /// The TLS session `tls` is no more.
        TlsFree = 9,
        /// This thread found nothing to read on an open connection that another had read from last.
        Look = 10,
        /// This thread asks for the stream `length` of the HTTP/2 session at `tls`; what asks is sent later. With 0, something came on
        /// it for the first time; without `conn`, as nothing came yet, the thread sends what was asked for.
        Stream = 11,
        /// The payload is what this end of a UNIX socket is bound to, or, with [`Flags::INGRESS`], the other end.
        Name = 12,
    }
}

numbered! {
    /// Which probe saw it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[repr(u8)]
    pub enum Source: u8 {
        /// A system call.
        Syscall = 0,
        /// OpenSSL or BoringSSL.
        OpenSsl = 1,
        /// GnuTLS.
        GnuTls = 2,
        /// Go's crypto/tls.
        GoTls = 3,
        /// A tracepoint below the system calls.
        Kernel = 4,
        /// Go's runtime or net/http: one goroutine lets another work for it, see [`Header::other_coroutine`].
        Go = 5,
        /// A queue of Python, through which threads give each other work, see [`Header::item`].
        Queue = 6,
        /// Node.js.
        Node = 7,
    }
}

impl Source {
    /// The bytes are what the application reads and writes, not what is on the wire.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::OpenSsl | Self::GnuTls | Self::GoTls)
    }
}

numbered! {
    /// The system call that moved the bytes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[repr(u32)]
    #[allow(missing_docs)]
    pub enum Call: u32 {
        None = 0,
        Read = 1,
        Readv = 2,
        RecvFrom = 3,
        RecvMsg = 4,
        RecvMmsg = 5,
        Write = 6,
        Writev = 7,
        SendTo = 8,
        SendMsg = 9,
        SendMmsg = 10,
        SendFile = 11,
        Splice = 12,
        Connect = 13,
        Accept = 14,
        Close = 15,
    }
}

/// Properties of an event, or-ed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Flags(pub u16);

impl Flags {
    /// Received; else sent.
    pub const INGRESS: Self = Self(1 << 0);
    /// Another thread moved the sequence number during the call.
    pub const SEQ_AMBIGUOUS: Self = Self(1 << 1);
    /// The payload could not be read, or is left out by policy.
    pub const NO_DATA: Self = Self(1 << 2);
    /// MSG_MORE.
    pub const MORE: Self = Self(1 << 3);
    /// This end accepted the connection.
    pub const SERVER: Self = Self(1 << 4);
    /// This end connected.
    pub const CLIENT: Self = Self(1 << 5);
    /// The bytes went through io_uring.
    pub const IO_URING: Self = Self(1 << 6);
    /// The other direction was the last one to carry data.
    pub const FIRST_IN_DIRECTION: Self = Self(1 << 7);
    /// The kernel encrypts: sequence numbers count ciphertext, the payload is plain.
    pub const KTLS: Self = Self(1 << 8);
    /// Fewer bytes were captured than moved.
    pub const TRUNCATED: Self = Self(1 << 9);

    /// All of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// AF_UNIX of `family`.
pub const AF_UNIX: u16 = 1;
/// AF_INET of `family`.
pub const AF_INET: u16 = 2;
/// AF_INET6 of `family`.
pub const AF_INET6: u16 = 10;

/// `struct event`. Everything is as the kernel wrote it; the methods read what is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    /// Bytes of this header and of the payload behind it.
    pub size: u32,
    /// See [`Self::kind`].
    pub kind: u8,
    /// See [`Self::source`].
    pub source: u8,
    /// Properties.
    pub flags: Flags,
    /// The call began, ns of CLOCK_BOOTTIME. [`Kind::Data`] of a system call has one time, see [`Self::time_ns`].
    pub enter_ns: u64,
    /// The call ended, ns of CLOCK_BOOTTIME; one that sent in a TLS session, when it used a socket for the last time.
    pub exit_ns: u64,
    /// Process, in the initial pid namespace.
    pub tgid: u32,
    /// Thread, in the initial pid namespace.
    pub tid: u32,
    /// When the process began, ns of CLOCK_BOOTTIME; tells processes apart that had the same pid.
    pub process_start_ns: u64,
    /// Goroutine; 0 for none.
    pub coroutine: u64,
    /// Id of the cgroup v2.
    pub cgroup: u64,
    /// Socket, never used twice in a run; 0 for none.
    pub conn: u64,
    /// Address of the TLS session's structure; 0 for none.
    /// [`Kind::Stream`]: of the HTTP/2 session's. [`Kind::Wake`]: the futex that the other thread waits for. With [`Source::Go`] see [`Self::other_coroutine`], with [`Source::Queue`] [`Self::item`].
    pub tls: u64,
    /// Waits (epoll, poll, select, io_uring) of this thread so far.
    pub turn: u32,
    /// Events of this thread so far, those that were lost as well; 0 for one that has no number.
    pub thread_event: u32,
    /// Data events of this socket so far.
    pub conn_event: u32,
    /// TCP sequence number of the first byte; 0 for other protocols.
    pub tcp_seq: u32,
    /// At the same instant, of the other direction: the next byte to read of a sent event, to write of a received one.
    pub opposite_seq: u32,
    /// Bytes that the call moved.
    /// [`Kind::Stream`]: the stream. [`Kind::Wake`]: not 0 when the other thread waits for a lock, or for a limited time. [`Kind::Fork`] with [`Source::Go`]: stands
    /// for the place of the go statement.
    pub length: u32,
    /// Bytes of payload behind this header.
    pub captured: u32,
    /// File descriptor.
    pub fd: i32,
    /// The other process of a fork; for [`Kind::Data`], [`Kind::Open`], [`Kind::Look`] and [`Kind::Stream`] how long the last wait of this
    /// thread was to last at most: 0 is unknown, 1 for ever, the largest number that the thread runs its timers instead, others 2 more
    /// than the milliseconds.
    pub other_tgid: u32,
    /// The other thread of a fork or wake-up; else see [`Self::stream`] and [`Self::events_meanwhile`].
    pub other_tid: u32,
    /// Inode of the network namespace; of a UNIX socket, at both ends, that of who connected.
    pub netns: u32,
    /// Interface that the socket is bound to; 0 for none.
    pub ifindex: u32,
    /// TCP's smoothed round trip, microseconds.
    pub srtt_us: u32,
    /// Segments that TCP sent again so far.
    pub retrans: u32,
    /// AF_INET, AF_INET6 or AF_UNIX; 0 without a socket.
    pub family: u16,
    /// Port of this end.
    pub local_port: u16,
    /// Port of the other end.
    pub remote_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// The kernel's TCP_ESTABLISHED, ...
    pub tcp_state: u8,
    /// Address of this end; see [`Self::local`].
    pub local: [u8; 16],
    /// Address of the other end; see [`Self::remote`].
    pub remote: [u8; 16],
    /// Buffers of the call.
    pub iov_count: u32,
    /// See [`Self::call`].
    pub call: u32,
}

const _: () = assert!(size_of::<Header>() == 176);

impl Header {
    /// What happened; `None` for a number that this version does not know.
    pub fn kind(&self) -> Option<Kind> {
        Kind::of(self.kind)
    }

    /// Which probe saw it; `None` for a number that this version does not know.
    pub fn source(&self) -> Option<Source> {
        Source::of(self.source)
    }

    /// The system call; [`Call::None`] for a number that this version does not know.
    pub fn call(&self) -> Call {
        Call::of(self.call).unwrap_or(Call::None)
    }

    /// The coroutine that works for `coroutine` from now on: [`Kind::Fork`] made it for that, [`Kind::Wake`] gives it one
    /// request to send, [`Kind::Stream`] that of one stream.
    pub fn other_coroutine(&self) -> Option<u64> {
        let is_read = self.kind() == Some(Kind::Stream) && self.is_ingress();
        (self.source() == Some(Source::Go) && !is_read).then_some(self.tls)
    }

    /// What this thread put into a queue ([`Kind::Fork`]), or took from one ([`Kind::Wake`]): no other item has this number
    /// while it is there.
    pub fn item(&self) -> Option<u64> {
        (self.source() == Some(Source::Queue)).then_some(self.tls)
    }

    /// The HTTP/2 stream, of the bytes that were received last, whose frame this thread is at: 0 for none, or where that is not
    /// known.
    pub fn stream(&self) -> u32 {
        let is_told = match self.kind() {
            Some(Kind::Data) => !self.source().is_some_and(Source::is_tls),
            kind => matches!(kind, Some(Kind::Open | Kind::Stream)),
        };
        if is_told { self.other_tid } else { 0 }
    }

    /// Of bytes that were sent in a TLS session: how many of its events were numbered while the call was under way, which has the
    /// number behind theirs.
    pub fn events_meanwhile(&self) -> u32 {
        let can_say = self.source().is_some_and(Source::is_tls) && self.kind() == Some(Kind::Data);
        if can_say && !self.is_ingress() { self.other_tid } else { 0 }
    }

    /// The bytes were received.
    pub fn is_ingress(&self) -> bool {
        self.flags.has(Flags::INGRESS)
    }

    /// When it counts: a send before the packets that it makes, a receive after them.
    pub fn time_ns(&self) -> u64 {
        if self.is_ingress() { self.exit_ns } else { self.enter_ns }
    }

    /// This end of the socket.
    pub fn local(&self) -> Endpoint {
        Endpoint { ip: self.address(&self.local), port: self.local_port }
    }

    /// The other end of the socket.
    pub fn remote(&self) -> Endpoint {
        Endpoint { ip: self.address(&self.remote), port: self.remote_port }
    }

    fn address(&self, bytes: &[u8; 16]) -> IpAddr {
        if self.family == AF_INET6 {
            return IpAddr::V6(Ipv6Addr::from(*bytes));
        }
        let [a, b, c, d, ..] = *bytes;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    }

    /// The bytes as they are in the kernel's ring and in event logs.
    pub fn as_bytes(&self) -> &[u8; size_of::<Self>()] {
        // SAFETY: `repr(C)` without padding: the fields' sizes add up to the size that is asserted above.
        unsafe { &*std::ptr::from_ref(self).cast() }
    }

    /// Reads a header; `None` when there are too few bytes.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..size_of::<Self>())?;
        // SAFETY: there are enough bytes, and any bytes are a valid header.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_bytes() {
        let header =
            Header { size: 180, kind: 1, conn: 7, call: 10, flags: Flags::INGRESS, ..Header::default() };
        let read = Header::read(header.as_bytes());
        assert_eq!(read, Some(header));
        assert_eq!(header.kind(), Some(Kind::Data));
        assert_eq!(header.call(), Call::SendMmsg);
        let unknown = Header { kind: 0, source: 200, call: 77, ..header };
        assert_eq!((unknown.kind(), unknown.source(), unknown.call()), (None, None, Call::None));
        assert_eq!(Header::read(&header.as_bytes()[1..]), None);
    }
}
