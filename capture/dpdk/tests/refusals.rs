//! What cannot be had is refused with one sentence.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "only tests run this")]

mod support;

use support::{eal, in_own_process, port};
use wirespan_dpdk::{Dpdk, DpdkError, Eal, EalOptions, PortOptions};

fn refusal(eal: &EalOptions, port: &PortOptions) -> String {
    let text = Dpdk::start(eal, port).err().expect("it must be refused").to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn an_unknown_device() {
    in_own_process("an_unknown_device", || {
        assert_eq!(
            refusal(&eal(&["net_nonsense0"]), &port("net_nonsense0")),
            "DPDK cannot start: failed to parse device \"net_nonsense0\"; check the name and the arguments of the device"
        );
    });
}

#[test]
fn a_device_with_a_missing_capture() {
    in_own_process("a_device_with_a_missing_capture", || {
        assert_eq!(
            refusal(&eal(&["net_pcap0,rx_pcap=/nowhere.pcap"]), &port("net_pcap0")),
            "DPDK has no port named net_pcap0 (at its start it said: Couldn't open /nowhere.pcap: /nowhere.pcap: No such file or directory); its ports are: none; bind a NIC to vfio-pci (deploy/dpdk.md) or name a virtual device"
        );
    });
}

#[test]
fn an_unknown_option() {
    in_own_process("an_unknown_option", || {
        let options = EalOptions { further: vec!["--nonsense".to_owned()], ..eal(&[]) };
        assert_eq!(
            refusal(&options, &port("net_null0")),
            "DPDK cannot start: unrecognized option '--nonsense'; see the EAL parameters in DPDK's guide for Linux"
        );
        let after = refusal(&eal(&[]), &port("net_null0"));
        assert_eq!(after, DpdkError::FailedBefore.to_string());
    });
}

#[test]
fn no_huge_pages() {
    in_own_process("no_huge_pages", || {
        let options = EalOptions { no_huge: false, memory_mib: Some(1 << 20), ..eal(&[]) };
        assert_eq!(
            refusal(&options, &port("net_null0")),
            "DPDK cannot start: Cannot get hugepage information; reserve huge pages (deploy/dpdk.md), or start it without huge pages when all devices are virtual"
        );
    });
}

#[test]
fn a_cpu_that_is_not_there() {
    in_own_process("a_cpu_that_is_not_there", || {
        let options = EalOptions { lcores: Some("1023".to_owned()), ..eal(&[]) };
        assert_eq!(
            refusal(&options, &port("net_null0")),
            "DPDK cannot start: core 1023 unavailable; choose among the CPUs that this process may use"
        );
    });
}

#[test]
fn other_options_at_the_second_start() {
    in_own_process("other_options_at_the_second_start", || {
        Eal::start(&eal(&["net_null0"])).unwrap();
        Eal::start(&eal(&["net_null0"])).unwrap();
        assert_eq!(Eal::start(&eal(&["net_null1"])).err(), Some(DpdkError::OtherOptions));
    });
}

#[test]
fn a_port_that_is_not_there() {
    in_own_process("a_port_that_is_not_there", || {
        let eal = eal(&["net_null0", "net_ring0"]);
        assert_eq!(
            refusal(&eal, &port("eth0")),
            "DPDK has no port named eth0; its ports are: net_null0, net_ring0; name one of them, or bind the NIC to \
             vfio-pci (deploy/dpdk.md)"
        );
    });
}

#[test]
fn no_port_at_all() {
    in_own_process("no_port_at_all", || {
        assert_eq!(
            refusal(&eal(&[]), &port("0000:3b:00.0")),
            "DPDK has no port named 0000:3b:00.0; its ports are: none; bind a NIC to vfio-pci (deploy/dpdk.md) or \
             name a virtual device"
        );
    });
}

#[test]
fn too_little_memory() {
    in_own_process("too_little_memory", || {
        let eal = EalOptions { memory_mib: Some(16), ..eal(&["net_null0"]) };
        let many = PortOptions { descriptors: 32_768, ..PortOptions::new("net_null0") };
        assert_eq!(
            refusal(&eal, &many),
            "DPDK has no 145 MiB in one piece for the frames of a queue; reserve more huge pages (without them, give it a larger -m), or give the port fewer queues or descriptors"
        );
    });
}

#[test]
fn an_mtu_that_is_too_long() {
    in_own_process("an_mtu_that_is_too_long", || {
        let long = PortOptions { mtu: Some(u16::MAX), ..port("net_null0") };
        assert_eq!(
            refusal(&eal(&["net_null0"]), &long),
            "the DPDK port net_null0 takes an MTU of at most 65000, not 65535; ask for less"
        );
    });
}
