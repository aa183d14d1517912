//! The program on a veth pair.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::kernel::{Socket, may_load};
use super::packets::*;
use super::{SEED, v4};
use crate::BpfError;
use crate::xdp::{Mode, Stamp, XdpOptions, XdpProgram};

/// A pair of interfaces, removed on drop.
struct Veth {
    near: String,
    far: String,
}

impl Veth {
    fn new(name: &str) -> Self {
        let near = format!("ws{}{name}n", std::process::id());
        let far = format!("ws{}{name}f", std::process::id());
        let veth = Self { near, far };
        ip(&["link", "add", &veth.near, "type", "veth", "peer", "name", &veth.far]);
        for interface in [&veth.near, &veth.far] {
            ip(&["link", "set", interface, "up", "addrgenmode", "none"]);
        }
        veth
    }

    /// Sends a frame to the near end.
    fn send(&self, frame: &[u8]) {
        let index = crate::sys::interface_index(&self.far).unwrap();
        // SAFETY: the pointers live as long as the calls, with the sizes that are given.
        unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_ifindex = index as i32;
            let place = std::ptr::from_ref(&address).cast();
            let sent =
                libc::sendto(fd, frame.as_ptr().cast(), frame.len(), 0, place, size_of_val(&address) as u32);
            libc::close(fd);
            assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
        }
    }

    fn has_program(&self) -> bool {
        let output = Command::new("ip").args(["-o", "link", "show", "dev", &self.near]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("prog/xdp")
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.near]).status();
    }
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_nic_tells_the_vlan_and_the_hash_and_the_flow_hash_is_in_the_stamp() {
    if !may_load() {
        return;
    }
    let veth = Veth::new("h");
    let options = XdpOptions { seed: SEED, flow_hash: true, nic_hints: true, ..XdpOptions::default() };
    let program = XdpProgram::attach(&veth.near, &options).unwrap();
    assert_eq!((program.mode(), program.fallbacks()), (Mode::Native, [].as_slice()));
    assert_eq!(program.nic_hints(), Stamp::RX_TIME | Stamp::RX_HASH | Stamp::VLAN);
    let socket = Socket::new();
    socket.bind(&veth.near);
    program.set_socket(0, &socket.fd).unwrap();

    veth.send(&frame(&v4().tcp(ACK, 1, 1, 10)));
    wait_until("a stamped frame", || !socket.stamps().is_empty());
    let stamp = socket.stamps()[0];
    assert!(stamp.has(Stamp::RX_HASH | Stamp::FLOW_HASH) && stamp.rx_hash != 0, "{stamp:?}");
    assert_eq!(stamp.flow_hash, v4().hash(SEED, 6));
    // The sender has no clock in hardware, and sent no tag.
    assert!(!stamp.has(Stamp::RX_TIME) && !stamp.has(Stamp::VLAN));
    assert_eq!(program.counters().unwrap().delivered, 1);
}

#[test]
fn frames_of_a_queue_without_a_socket_stay_with_the_system() {
    if !may_load() {
        return;
    }
    let veth = Veth::new("p");
    let program = XdpProgram::attach(&veth.near, &XdpOptions::default()).unwrap();
    veth.send(&frame(&v4().udp(&[])));
    wait_until("a passed frame", || program.counters().unwrap().passed == 1);
    let counters = program.counters().unwrap();
    assert_eq!((counters.received, counters.handled()), (1, 1));
}

#[test]
fn an_interface_that_has_a_program_is_busy_and_is_free_again_on_drop() {
    if !may_load() {
        return;
    }
    let veth = Veth::new("b");
    let program = XdpProgram::attach(&veth.near, &XdpOptions::default()).unwrap();
    let second = XdpProgram::attach(&veth.near, &XdpOptions { nic_hints: true, ..XdpOptions::default() });
    assert!(matches!(second, Err(BpfError::InterfaceBusy { .. })), "{second:?}");
    drop(program);
    // A process that another test forks holds the link until it runs its own program.
    wait_until("an interface without a program", || !veth.has_program());
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    if !may_load() {
        return;
    }
    let error = XdpProgram::attach("nosuchif", &XdpOptions::default()).unwrap_err();
    assert!(error.to_string().contains("nosuchif"), "{error}");
}

#[test]
fn a_driver_without_hints_or_native_mode_is_said() {
    if !may_load() {
        return;
    }
    let program = match XdpProgram::attach("lo", &XdpOptions { nic_hints: true, ..XdpOptions::default() }) {
        Err(BpfError::InterfaceBusy { .. }) => return,
        result => result.unwrap(),
    };
    assert_eq!(program.mode(), Mode::Generic);
    assert_eq!(program.fallbacks().len(), 2, "{:?}", program.fallbacks());
}

const CHILD: &str = "WIRESPAN_BPF_TEST_INTERFACE";

/// Only does something as the child of the test below.
#[test]
fn child_that_is_killed() {
    let Some(interface) = std::env::var_os(CHILD) else { return };
    let _program = XdpProgram::attach(interface.to_str().unwrap(), &XdpOptions::default()).unwrap();
    sleep(Duration::from_secs(60));
}

#[test]
fn nothing_stays_behind_a_process_that_is_killed() {
    if !may_load() {
        return;
    }
    let veth = Veth::new("k");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "xdp::tests::live::child_that_is_killed"])
        .env(CHILD, &veth.near)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the child's program", || veth.has_program());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("an interface without a program", || !veth.has_program());
}
