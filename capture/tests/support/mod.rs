//! Network namespaces with a veth pair in them, and frames to send through it.

#![allow(dead_code, unused_imports, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "only tests run this")]

mod sender;

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use sender::Sender;
use wirespan_capture::{Descriptor, Frame, LendingSource, PacketSource, Region, SourceStats};

/// IEEE 802 local experimental EtherType: what the kernel sends by itself never has it.
pub const TEST_ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// A test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long a source waits: on a busy machine, a frame may take a while through a veth pair.
pub const POLL_TIMEOUT: Duration = Duration::from_millis(500);

/// Runs `test` on a thread in a network namespace of its own with the interfaces `left` and `right`, a veth pair
/// that is up. The namespace ends with the thread, and all that is in it.
pub fn in_namespace(test: impl FnOnce() + Send) {
    let outcome = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter_namespace()?;
            ip("link set lo up");
            ip("link add left numrxqueues 1 numtxqueues 1 type veth peer name right numrxqueues 1 numtxqueues 1");
            ip("link set left up");
            ip("link set right up");
            wait_until_up(&["left", "right"]);
            test();
            Ok::<_, String>(())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    if let Err(reason) = outcome {
        assert!(std::env::var_os("CI").is_none(), "{reason}");
        eprintln!("skipped: {reason}");
    }
}

fn enter_namespace() -> Result<(), String> {
    Command::new("ip")
        .arg("-V")
        .output()
        .map_err(|error| format!("needs the program `ip` ({error}); install the package iproute2"))?;
    // SAFETY: moves this thread alone.
    match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(format!("needs a network namespace ({}); run as root", io::Error::last_os_error())),
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

/// Frames on the wire = frames lent + the sum of the named drops.
pub fn accounts_for(stats: &SourceStats, sent: u64) {
    let dropped: u64 = stats.drops.iter().map(|(_, frames)| frames).sum();
    assert_eq!(dropped, stats.kernel_drops);
    assert_eq!(stats.received + dropped, sent, "{stats:?}");
}

/// Switches the kernel's own traffic on the veth pair off, so that only what a test sends is on the wire.
pub fn silence() {
    for end in ["left", "right"] {
        ip(&format!("link set {end} down"));
        ip(&format!("link set {end} addrgenmode none"));
        ip(&format!("link set {end} arp off multicast off"));
        ip(&format!("link set {end} up"));
    }
    wait_until_up(&["left", "right"]);
}

/// The kernel drops what is sent through an interface until its worker has noticed that the link is up.
pub fn wait_until_up(interfaces: &[&str]) {
    let start = Instant::now();
    for interface in interfaces {
        let is_up = || {
            let output = Command::new("ip").args(["link", "show", interface]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains("state UP")
        };
        while !is_up() {
            assert!(start.elapsed() < PATIENCE, "{interface} does not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
        // Waits for the lock that the worker holds until it is done.
        ip(&format!("link set {interface} up"));
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

/// Sends numbered frames out of `left`, never more than 96 ahead of those that were looked at, and checks that each is seen once and
/// whole. As many may be lent at the same time, so that a source needs room for twice that, and for what the kernel itself sends.
pub fn sees_what_is_sent(source: &mut dyn PacketSource, frames: u32) {
    let before = source.stats();
    let seen = AtomicU32::new(0);
    let mut others = 0;
    let mut last_ns = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| send_numbered(frames, &seen));
        let start = Instant::now();
        while seen.load(Ordering::Relaxed) < frames {
            assert!(start.elapsed() < PATIENCE, "saw {seen:?} of {frames} frames: {:?}", source.stats());
            for frame in source.next_batch().unwrap().unwrap().frames() {
                let Some(number) = number(&frame) else {
                    others += 1;
                    continue;
                };
                assert_eq!(number, seen.fetch_add(1, Ordering::Relaxed));
                assert_eq!(frame.data, numbered(number));
                assert_eq!(frame.wire_len as usize, frame.data.len());
                assert!(frame.ts_ns >= last_ns, "time went back");
                last_ns = frame.ts_ns;
            }
        }
    });
    take_rest(source, |frame| {
        assert_eq!(number(frame), None, "seen twice");
        others += 1;
    });
    let after = source.stats();
    assert_eq!(after.kernel_drops, before.kernel_drops);
    assert_eq!(after.received - before.received, u64::from(frames) + others);
    let now_ns = now_ns();
    assert!(now_ns.abs_diff(last_ns) < PATIENCE.as_nanos() as u64, "{last_ns} is not now ({now_ns})");
}

fn send_numbered(frames: u32, seen: &AtomicU32) {
    let start = Instant::now();
    let sender = Sender::new("left");
    for number in 0..frames {
        while number > seen.load(Ordering::Relaxed) + 96 {
            if start.elapsed() > PATIENCE {
                return;
            }
            std::thread::yield_now();
        }
        sender.send(&numbered(number));
    }
}

/// The time of day.
pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// Runs `action` on a thread without any privilege.
pub fn as_nobody<T: Send>(action: impl FnOnce() -> T + Send) -> T {
    const NOBODY: libc::c_long = 65534;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: no memory is involved; the bare system call changes this thread alone.
            let result = unsafe {
                match libc::geteuid() {
                    0 => libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY),
                    _ => 0,
                }
            };
            assert_eq!(result, 0);
            action()
        });
        thread.join().unwrap()
    })
}

/// A numbered frame of any length.
pub fn numbered_of(number: u32, len: usize) -> Vec<u8> {
    let mut frame = numbered(number);
    frame.truncate(60);
    // Parts that were put together in the wrong order would show.
    frame.extend((60..len).map(|at| (at / 251 + at + number as usize) as u8));
    frame
}

/// Takes frames and keeps them while others come, then gives them back in another order; what is lent stays as it is.
pub fn lends_for_longer(source: &mut dyn LendingSource) {
    let region = source.region();
    let sender = Sender::new("left");
    let mut lent = Vec::new();
    for number in 0..60 {
        sender.send(&numbered(number));
    }
    take_all(source, &mut lent);
    for number in 60..90 {
        sender.send(&numbered(number));
    }
    let kept = lent.clone();
    let reader = std::thread::spawn({
        let region = region.clone();
        move || numbers_in(&region, &kept)
    });
    take_all(source, &mut lent);
    assert_eq!(reader.join().unwrap(), (0..60).collect::<Vec<_>>());
    let seen = numbers_in(&region, &lent);
    assert_eq!(seen, (0..90).collect::<Vec<_>>());
    let offsets: Vec<_> = lent.iter().rev().map(|lent| lent.offset).collect();
    source.give_back(&offsets);
}

fn take_all(source: &mut dyn LendingSource, lent: &mut Vec<Descriptor>) {
    loop {
        let before = lent.len();
        source.take(7, lent).unwrap();
        if lent.len() == before {
            source.wait(POLL_TIMEOUT, None).unwrap();
            source.take(7, lent).unwrap();
            if lent.len() == before {
                return;
            }
        }
    }
}

fn numbers_in(region: &Region, lent: &[Descriptor]) -> Vec<u32> {
    // SAFETY: they are given back later.
    let batch = unsafe { region.batch(lent) };
    let whole = |frame: Frame<'_>| number(&frame).inspect(|&number| assert_eq!(frame.data, numbered(number)));
    batch.frames().filter_map(whole).collect()
}

/// An AF_XDP socket on the first queue of an interface, as another program may have.
pub fn occupy_queue(interface: &str) -> OwnedFd {
    const BYTES: usize = 64 * 4096;
    let name = CString::new(interface).unwrap();
    // SAFETY: the descriptor is new, the memory is mapped for good, and lengths are those of the values.
    unsafe {
        let fd = libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        let socket = OwnedFd::from_raw_fd(fd);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let memory =
            libc::mmap(std::ptr::null_mut(), BYTES, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        let mut registration: libc::xdp_umem_reg = std::mem::zeroed();
        registration.addr = memory as u64;
        registration.len = BYTES as u64;
        registration.chunk_size = 4096;
        let set = |name, value: *const libc::c_void, len: usize| {
            assert_eq!(libc::setsockopt(fd, libc::SOL_XDP, name, value, len as u32), 0);
        };
        set(libc::XDP_UMEM_REG, (&raw const registration).cast(), size_of_val(&registration));
        let entries: libc::c_int = 64;
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING] {
            set(ring, (&raw const entries).cast(), size_of_val(&entries));
        }
        let mut address: libc::sockaddr_xdp = std::mem::zeroed();
        address.sxdp_family = libc::AF_XDP as u16;
        address.sxdp_flags = libc::XDP_COPY;
        address.sxdp_ifindex = libc::if_nametoindex(name.as_ptr());
        let bound = libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as u32);
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        socket
    }
}
