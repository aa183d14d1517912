//! Network namespaces with a veth pair in them, and frames to send through it.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "only tests run this")]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use wirespan_capture::{Frame, PacketSource};

/// IEEE 802 local experimental EtherType: what the kernel sends by itself never has it.
pub const TEST_ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Runs `test` on a thread in a network namespace of its own with the interfaces `left` and `right`, a veth pair
/// that is up. The namespace ends with the thread, and all that is in it.
pub fn in_namespace(test: impl FnOnce() + Send) {
    if let Err(reason) = privileged() {
        assert!(std::env::var_os("CI").is_none(), "{reason}");
        eprintln!("skipped: {reason}");
        return;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: moves this thread alone.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "{}", io::Error::last_os_error());
            ip("link set lo up");
            ip("link add left numrxqueues 1 numtxqueues 1 type veth peer name right numrxqueues 1 numtxqueues 1");
            ip("link set left up");
            ip("link set right up");
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn privileged() -> Result<(), String> {
    // SAFETY: no memory is involved.
    if unsafe { libc::geteuid() } != 0 {
        return Err("needs root to make a network namespace; run as root".into());
    }
    match Command::new("ip").arg("-V").output() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("needs the program `ip` ({error}); install the package iproute2")),
    }
}

/// Runs `ip` in this thread's namespace.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A TUN interface; what is written to the file comes in on it.
pub fn tunnel(name: &str) -> File {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: zero is a valid request, and the kernel reads and writes this one.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
        libc::ioctl(file.as_raw_fd(), TUNSETIFF as _, &mut request)
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    file
}

/// Sends whole frames out of an interface.
pub struct Sender {
    socket: OwnedFd,
    address: libc::sockaddr_ll,
}

impl Sender {
    pub fn new(interface: &str) -> Self {
        let name = CString::new(interface).unwrap();
        // SAFETY: a string that ends in zero; the descriptor is new; zero is a valid address.
        let (socket, mut address) = unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            (OwnedFd::from_raw_fd(fd), std::mem::zeroed::<libc::sockaddr_ll>())
        };
        address.sll_family = libc::AF_PACKET as u16;
        // SAFETY: as above.
        address.sll_ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) } as i32;
        Self { socket, address }
    }

    /// Sends a frame, again and again while the other end's queue is full.
    pub fn send(&self, frame: &[u8]) {
        loop {
            // SAFETY: both buffers live, and their lengths are right.
            let sent = unsafe {
                libc::sendto(
                    self.socket.as_raw_fd(),
                    frame.as_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw const self.address).cast(),
                    size_of::<libc::sockaddr_ll>() as u32,
                )
            };
            if sent == frame.len() as isize {
                return;
            }
            let error = io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{error}");
            std::thread::yield_now();
        }
    }
}

/// A frame that tells its number, of a length between 60 and 1514 bytes that depends on it.
pub fn numbered(number: u32) -> Vec<u8> {
    let len = 60 + (number as usize * 7919) % (1514 - 60 + 1);
    let mut frame = vec![number as u8; len];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&TEST_ETHERTYPE);
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    frame
}

/// The number of a frame that [`numbered`] made.
pub fn number(frame: &Frame<'_>) -> Option<u32> {
    if frame.data.get(12..14) != Some(&TEST_ETHERTYPE) {
        return None;
    }
    Some(u32::from_be_bytes(*frame.data.get(14..)?.first_chunk()?))
}

/// Takes batches until `done` says so; fails after 20 seconds.
pub fn take_until(
    source: &mut dyn PacketSource,
    mut each: impl FnMut(&Frame<'_>),
    mut done: impl FnMut() -> bool,
) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "not all was seen: {:?}", source.stats());
        let batch = source.next_batch().unwrap().unwrap();
        batch.frames().for_each(|frame| each(&frame));
    }
}

/// Takes what still comes within a moment.
pub fn take_rest(source: &mut dyn PacketSource, mut each: impl FnMut(&Frame<'_>)) {
    loop {
        let batch = source.next_batch().unwrap().unwrap();
        if batch.is_empty() {
            return;
        }
        batch.frames().for_each(|frame| each(&frame));
    }
}

/// Sends numbered frames out of `left` while `source` captures them; checks that each is seen once and whole, or
/// counted as dropped by the kernel.
pub fn sees_what_is_sent(source: &mut dyn PacketSource, frames: u32) {
    let before = source.stats();
    let mut seen = BTreeMap::<u32, u32>::new();
    let mut others = 0u64;
    let mut last_ns = 0;
    let mut each = |frame: &Frame<'_>| match number(frame) {
        Some(number) => {
            assert_eq!(frame.data, numbered(number));
            assert_eq!(frame.wire_len as usize, frame.data.len());
            assert!(frame.ts_ns >= last_ns, "time went back");
            last_ns = frame.ts_ns;
            *seen.entry(number).or_default() += 1;
        }
        None => others += 1,
    };
    std::thread::scope(|scope| {
        let sender = Sender::new("left");
        let sending = scope.spawn(move || (0..frames).for_each(|number| sender.send(&numbered(number))));
        take_until(source, &mut each, || sending.is_finished());
    });
    take_rest(source, &mut each);
    let after = source.stats();
    let dropped = after.kernel_drops - before.kernel_drops;
    assert!(seen.values().all(|count| *count == 1));
    assert_eq!(after.received - before.received, seen.len() as u64 + others);
    assert!(seen.len() as u64 <= u64::from(frames));
    // Frames of the kernel's own may be among the dropped.
    assert!(seen.len() as u64 + dropped >= u64::from(frames), "seen {}, dropped {dropped}", seen.len());
    assert!(seen.len() as u32 > frames / 2, "seen {}, dropped {dropped}", seen.len());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    assert!(last_ns <= now && now - last_ns < 30_000_000_000, "{last_ns} is not now ({now})");
}

/// Runs `action` on a thread without any privilege.
pub fn as_nobody<T: Send>(action: impl FnOnce() -> T + Send) -> T {
    const NOBODY: libc::c_long = 65534;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: the bare system call changes this thread alone.
            let result = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
            assert_eq!(result, 0);
            action()
        });
        thread.join().unwrap()
    })
}
