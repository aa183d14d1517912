//! Runs the program in the kernel, on frames of ours (BPF_PROG_TEST_RUN).

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use aya_obj::generated::{bpf_attr, bpf_cmd};

use crate::object::Loaded;
use crate::sys;
use crate::xdp::{Counters, FilterMap, ShuntMap, Stamp, Statistics, XdpOptions, filter, load, map, shunt};

/// What a test that needs root does without: says so and returns, except in CI.
#[must_use]
pub fn may_load() -> bool {
    // SAFETY: takes no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        assert!(std::env::var_os("CI").is_none(), "the eBPF tests must run as root in CI");
        eprintln!("skipped: needs root, to load eBPF programs");
    }
    root
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Dropped,
    Passed,
    /// To the socket, with the stamp in front of it, and these bytes.
    Delivered(Stamp, Vec<u8>),
}

impl Verdict {
    pub fn stamp(&self) -> Stamp {
        match self {
            Self::Delivered(stamp, _) => *stamp,
            other => panic!("not delivered: {other:?}"),
        }
    }

    pub fn delivered(&self) -> bool {
        matches!(self, Self::Delivered(..))
    }
}

/// The program, loaded and not attached, with a socket for queue 0.
pub struct Kernel {
    loaded: Loaded,
    statistics: Statistics,
    shunt: ShuntMap,
    _socket: Socket,
}

impl Kernel {
    pub fn new(options: &XdpOptions) -> Self {
        let (loaded, traits) = load(options, None).unwrap();
        assert!(traits.frags || std::env::var_os("CI").is_none());
        let socket = Socket::new();
        map(&loaded, "sockets").unwrap().set(&0u32, &(socket.fd.as_raw_fd() as u32), 0).unwrap();
        let statistics = Statistics(map(&loaded, "statistics").unwrap());
        let shunt = shunt(&loaded, &statistics).unwrap();
        Self { loaded, statistics, shunt, _socket: socket }
    }

    pub fn filter(&self) -> FilterMap {
        filter(&self.loaded, &Default::default()).unwrap()
    }

    pub fn shunt(&self) -> ShuntMap {
        self.shunt.clone()
    }

    pub fn counters(&self) -> Counters {
        self.statistics.sum().unwrap()
    }

    pub fn run(&self, frame: &[u8]) -> Verdict {
        let (action, out, _) = test_run(&self.loaded.program, frame, 1);
        match action {
            1 => Verdict::Dropped,
            2 => Verdict::Passed,
            4 => {
                let (stamp, frame) = out.split_at(size_of::<Stamp>());
                // SAFETY: a stamp may be any bytes.
                Verdict::Delivered(unsafe { stamp.as_ptr().cast::<Stamp>().read_unaligned() }, frame.to_vec())
            }
            other => panic!("XDP action {other}"),
        }
    }

    /// Nanoseconds for a frame, on average of `repeat` runs.
    pub fn cost_ns(&self, frame: &[u8], repeat: u32) -> u32 {
        test_run(&self.loaded.program, frame, repeat).2
    }
}

/// The program's result, the bytes it leaves, and nanoseconds for a run, on average of `repeat`.
pub fn test_run(program: &impl AsFd, frame: &[u8], repeat: u32) -> (u32, Vec<u8>, u32) {
    let mut out = vec![0u8; frame.len() + 512];
    // SAFETY: all fields are integers.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the variant of BPF_PROG_TEST_RUN.
    let test = unsafe { &mut attr.test };
    test.prog_fd = program.as_fd().as_raw_fd() as u32;
    test.data_in = frame.as_ptr() as u64;
    test.data_size_in = frame.len() as u32;
    test.data_out = out.as_mut_ptr() as u64;
    test.data_size_out = out.len() as u32;
    test.repeat = repeat;
    sys::bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr).unwrap();
    // SAFETY: as above.
    let test = unsafe { &attr.test };
    out.truncate(test.data_size_out as usize);
    (test.retval, out, test.duration)
}

const UMEM_BYTES: usize = 1 << 20;
const FRAME_BYTES: usize = 4096;
const RING: u32 = 64;

/// An AF_XDP socket with as much as a map wants to see of it, and memory that frames are written to.
pub struct Socket {
    pub fd: OwnedFd,
    umem: *mut u8,
}

impl Socket {
    pub fn new() -> Self {
        // SAFETY: the arguments are those that the kernel documents, and pointers live as long as the calls.
        unsafe {
            let fd = libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(fd >= 0, "{}", std::io::Error::last_os_error());
            let fd = OwnedFd::from_raw_fd(fd);
            let (access, kind) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let umem = libc::mmap(std::ptr::null_mut(), UMEM_BYTES, access, kind, -1, 0);
            assert_ne!(umem, libc::MAP_FAILED);
            let mut registration: libc::xdp_umem_reg = std::mem::zeroed();
            registration.addr = umem as u64;
            registration.len = UMEM_BYTES as u64;
            registration.chunk_size = FRAME_BYTES as u32;
            set_option(&fd, libc::XDP_UMEM_REG, &registration);
            for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING] {
                set_option(&fd, ring, &RING);
            }
            Self { fd, umem: umem.cast() }
        }
    }

    /// Receives on queue 0 of an interface.
    pub fn bind(&self, interface: &str) {
        // SAFETY: as in `new`; the ring is mapped with the size that its offsets say.
        unsafe {
            let mut offsets: libc::xdp_mmap_offsets = std::mem::zeroed();
            let mut len = size_of_val(&offsets) as u32;
            let result = libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_XDP,
                libc::XDP_MMAP_OFFSETS,
                std::ptr::from_mut(&mut offsets).cast(),
                &mut len,
            );
            assert_eq!(result, 0);
            let ring = libc::mmap(
                std::ptr::null_mut(),
                offsets.fr.desc as usize + RING as usize * 8,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                self.fd.as_raw_fd(),
                libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t,
            );
            assert_ne!(ring, libc::MAP_FAILED);
            let ring: *mut u8 = ring.cast();
            for frame in 0..RING as usize {
                ring.add(offsets.fr.desc as usize + frame * 8)
                    .cast::<u64>()
                    .write((frame * FRAME_BYTES) as u64);
            }
            ring.add(offsets.fr.producer as usize).cast::<u32>().write_volatile(RING);
            let mut address: libc::sockaddr_xdp = std::mem::zeroed();
            address.sxdp_family = libc::AF_XDP as u16;
            address.sxdp_flags = libc::XDP_COPY;
            address.sxdp_ifindex = sys::interface_index(interface).unwrap();
            let address = std::ptr::from_ref(&address).cast();
            let result = libc::bind(self.fd.as_raw_fd(), address, size_of::<libc::sockaddr_xdp>() as u32);
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        }
    }

    /// The stamps in the memory, in the order in which the frames lie.
    pub fn stamps(&self) -> Vec<Stamp> {
        // SAFETY: the memory is mapped as long as `self`, and the kernel is done with frames that were waited for.
        let memory = unsafe { std::slice::from_raw_parts(self.umem, UMEM_BYTES) };
        let stamp = |place: &[u8]| {
            let magic = u32::from_ne_bytes(place[..4].try_into().unwrap());
            // SAFETY: a stamp may be any bytes.
            (magic == Stamp::MAGIC).then(|| unsafe { place.as_ptr().cast::<Stamp>().read_unaligned() })
        };
        memory.windows(size_of::<Stamp>()).step_by(2).filter_map(stamp).collect()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nothing of it is used any more.
        unsafe { libc::munmap(self.umem.cast(), UMEM_BYTES) };
    }
}

fn set_option<T>(fd: &OwnedFd, option: i32, value: &T) {
    // SAFETY: the pointer is to a value of the size that is given.
    let result = unsafe {
        let value_pointer = std::ptr::from_ref(value).cast();
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, value_pointer, size_of::<T>() as u32)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
