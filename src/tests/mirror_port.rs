//! A mirror port to send frames into.

use crate::support::{PATIENCE, run};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A mirror port: what is sent on the other end of a veth pair, in a namespace of its own, comes in here.
pub struct Mirror {
    namespace: String,
    /// The interface that it feeds.
    pub port: String,
}

impl Mirror {
    pub fn new(tag: &str) -> Self {
        Self::with_queues(tag, 1)
    }

    /// The sender's kernel spreads frames over so many queues, by their outer addresses and ports.
    pub fn with_queues(tag: &str, queues: u32) -> Self {
        let id = std::process::id();
        let mirror = Self { namespace: format!("wsm{tag}-{id}"), port: format!("wsm{tag}{id}") };
        let Self { namespace, port } = &mirror;
        run(&format!("ip netns add {namespace}"));
        let each = format!("mtu 9000 numrxqueues {queues} numtxqueues {queues}");
        run(&format!("ip link add {port} {each} type veth peer name eth0 {each} netns {namespace}"));
        // The kernel's own neighbour discovery would be frames that nobody sent.
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{port}/disable_ipv6"), "1").unwrap();
        run(&format!("ip netns exec {namespace} sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1"));
        run(&format!("ip link set {port} up"));
        run(&format!("ip -n {namespace} link set eth0 up"));
        mirror
    }

    /// What is sent before the kernel has noticed that the link is up is lost without a word.
    pub fn wait_until_up(&self) {
        let start = Instant::now();
        for namespace in ["", self.namespace.as_str()] {
            let interface = if namespace.is_empty() { &self.port } else { "eth0" };
            let is_up = || {
                let mut ip = Command::new("ip");
                if !namespace.is_empty() {
                    ip.args(["-n", namespace]);
                }
                let output = ip.args(["link", "show", interface]).output().unwrap();
                String::from_utf8_lossy(&output.stdout).contains("state UP")
            };
            while !is_up() {
                assert!(start.elapsed() < PATIENCE, "{interface} did not come up");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// Does something in the namespace.
    pub fn within<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = std::fs::File::open(format!("/var/run/netns/{}", self.namespace)).unwrap();
                // SAFETY: moves this thread alone into the namespace.
                assert_eq!(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
                action()
            });
            thread.join().unwrap()
        })
    }

    /// Sends frames into the port, slowly enough for a busy machine.
    pub fn send(&self, frames: &[Vec<u8>]) {
        self.wait_until_up();
        self.within(|| {
            // SAFETY: the descriptor is new and owned.
            let socket = unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)) };
            // SAFETY: zero is a valid address, the name ends in zero.
            let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            address.sll_family = libc::AF_PACKET as u16;
            // SAFETY: as above.
            address.sll_ifindex = unsafe { libc::if_nametoindex(c"eth0".as_ptr()) } as i32;
            for (number, frame) in frames.iter().enumerate() {
                // SAFETY: both buffers live, and their lengths are right.
                let sent = unsafe {
                    libc::sendto(
                        socket.as_raw_fd(),
                        frame.as_ptr().cast(),
                        frame.len(),
                        0,
                        (&raw const address).cast(),
                        size_of_val(&address) as u32,
                    )
                };
                assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
                if number % 64 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).status();
        let _ = Command::new("ip").args(["link", "del", &self.port]).stderr(Stdio::null()).status();
    }
}
