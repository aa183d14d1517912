//! Bytes that io_uring moves.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use wirespan_event::{Flags, Kind, Source};

use super::tcp::pair;
use super::watch::{Watch, this_process, watch};

const IORING_OP_SEND: u8 = 26;
const IORING_OP_RECV: u8 = 27;
const IORING_ENTER_GETEVENTS: u32 = 1;
const OFF_SQ_RING: i64 = 0;
const OFF_SQES: i64 = 0x1000_0000;

/// `struct io_uring_params`, with the offsets of the submission ring that are needed.
#[repr(C)]
#[derive(Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    rest: [u32; 7],
    sq_head: u32,
    sq_tail: u32,
    sq_mask: u32,
    sq_ring_entries: u32,
    sq_flags: u32,
    sq_dropped: u32,
    sq_array: u32,
    rest_of_sq: [u32; 3],
    cq: [u32; 10],
}

/// One operation at a time.
struct Uring {
    fd: OwnedFd,
    ring: *mut u8,
    sqes: *mut u8,
    params: Params,
}

impl Uring {
    fn new() -> io::Result<Self> {
        let mut params = Params::default();
        // SAFETY: the structure has the size that the kernel writes (120 bytes); the descriptor is new.
        unsafe {
            assert_eq!(size_of::<Params>(), 120);
            let fd = libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut params);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = OwnedFd::from_raw_fd(fd as i32);
            let map = |offset| {
                let protection = libc::PROT_READ | libc::PROT_WRITE;
                let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
                let at = libc::mmap(std::ptr::null_mut(), 4096, protection, flags, fd.as_raw_fd(), offset);
                assert_ne!(at, libc::MAP_FAILED, "{}", io::Error::last_os_error());
                at.cast::<u8>()
            };
            Ok(Self { ring: map(OFF_SQ_RING), sqes: map(OFF_SQES), fd, params })
        }
    }

    /// Submits an operation on a socket and waits for its end.
    fn run(&mut self, operation: u8, socket: &TcpStream, bytes: &mut [u8]) {
        // SAFETY: the entry (64 bytes), the tail and the array are in the mapped pages; the buffer lives until the end.
        unsafe {
            self.sqes.write_bytes(0, 64);
            self.sqes.write(operation);
            self.sqes.add(4).cast::<i32>().write(socket.as_raw_fd());
            self.sqes.add(16).cast::<u64>().write(bytes.as_mut_ptr() as u64);
            self.sqes.add(24).cast::<u32>().write(bytes.len() as u32);
            self.ring.add(self.params.sq_array as usize).cast::<u32>().write(0);
            let tail = &*self.ring.add(self.params.sq_tail as usize).cast::<AtomicU32>();
            tail.fetch_add(1, Ordering::Release);
            let done = libc::syscall(
                libc::SYS_io_uring_enter,
                self.fd.as_raw_fd(),
                1,
                1,
                IORING_ENTER_GETEVENTS,
                0,
                0,
            );
            assert_eq!(done, 1, "{}", io::Error::last_os_error());
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`.
        unsafe {
            libc::munmap(self.ring.cast(), 4096);
            libc::munmap(self.sqes.cast(), 4096);
        }
    }
}

#[test]
fn what_io_uring_moves_is_told_without_its_bytes() {
    let Some(mut watch) = watch(&this_process()) else { return };
    if let Some(feature) = watch
        .tracer
        .features()
        .iter()
        .find(|feature| feature.name.ends_with("io_uring") && feature.off.is_some())
    {
        eprintln!("skipped: {} are off: {:?}", feature.name, feature.off);
        return;
    }
    let mut uring = match Uring::new() {
        Ok(uring) => uring,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "needs io_uring: {error}");
            eprintln!("skipped: needs io_uring ({error}); see sysctl kernel.io_uring_disabled");
            return;
        }
    };
    let runs = |watch: &Watch| -> u64 {
        let programs = watch.tracer.stats().unwrap().programs;
        programs.iter().filter(|program| program.name.ends_with("_length")).map(|program| program.runs).sum()
    };
    let _counting = watch.tracer.count_cost().unwrap();
    let (mut client, mut server, port) = pair("127.0.0.1", "127.0.0.1");
    let mut exchange = || {
        client.write_all(b"call").unwrap();
        server.read_exact(&mut [0; 4]).unwrap();
    };
    exchange();
    assert_eq!(runs(&watch), 0, "nobody pays for what nobody uses");
    watch.drain();
    exchange();
    assert!(runs(&watch) >= 2);
    uring.run(IORING_OP_SEND, &client, &mut [b'u'; 33]);
    let mut room = [0; 33];
    uring.run(IORING_OP_RECV, &server, &mut room);
    assert_eq!(room, [b'u'; 33]);
    let told = watch.of_port(2, Kind::Socket, port);
    let [sent, received] = &told[..] else { panic!("{told:#?}") };
    for seen in [sent, received] {
        assert_eq!((seen.header.length, seen.header.captured), (33, 0));
        assert!(seen.has(Flags::IO_URING) && seen.has(Flags::NO_DATA), "{seen:?}");
        assert_eq!(seen.header.source(), Some(Source::Kernel));
        assert_eq!(seen.header.tcp_seq, sent.header.tcp_seq);
    }
    assert!(!sent.has(Flags::INGRESS) && received.has(Flags::INGRESS));
}
