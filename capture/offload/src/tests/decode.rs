//! Bytes that no kernel would send are decoded all the same, without a panic.

use crate::kernel::{Bus, Ioctl, Kernel, Promiscuous};
use crate::machine::Machine;
use crate::netlink::{Netlink, collect};
use crate::nic::Nic;
use crate::shunt::hardware_counters;
use crate::{Plan, attr, link};
use proptest::prelude::*;
use std::io;

/// Answers everything with the same bytes, and messages with a right header around them.
#[derive(Clone)]
struct Nonsense {
    bytes: Vec<u8>,
    sequence: [u8; 4],
    acknowledge: bool,
}

impl Kernel for Nonsense {
    fn send(&mut self, _: Bus, message: &[u8]) -> io::Result<()> {
        self.sequence = message[8..12].try_into().unwrap();
        Ok(())
    }

    fn receive(&mut self, _: Bus) -> io::Result<Vec<u8>> {
        let message = |kind: u16, payload: &[u8]| {
            let mut message = u32::try_from(16 + payload.len()).unwrap().to_ne_bytes().to_vec();
            message.extend([kind.to_ne_bytes(), [0; 2]].concat());
            message.extend(self.sequence);
            message.extend([0; 4]);
            message.extend(payload);
            message.resize(message.len().next_multiple_of(4), 0);
            message
        };
        let mut datagram = message(16, &self.bytes);
        if self.acknowledge {
            datagram.extend(message(2, &[0; 20]));
        } else {
            datagram.extend(message(2, &self.bytes));
        }
        Ok(datagram)
    }

    fn ioctl(&mut self, _: Ioctl, _: &str, data: &mut [u8]) -> io::Result<()> {
        for (to, from) in data.iter_mut().zip(&self.bytes) {
            *to = *from;
        }
        Ok(())
    }

    fn read(&mut self, _: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes).into_owned())
    }

    fn list(&mut self, _: &str) -> io::Result<Vec<String>> {
        Ok(vec![String::from_utf8_lossy(&self.bytes).into_owned()])
    }

    fn write(&mut self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn promiscuous(&mut self, _: u32) -> io::Result<Promiscuous> {
        Ok(Promiscuous::RECORDED)
    }
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![3 => 0_u8..10, 1 => any::<u8>()], 0..160)
}

/// Attributes in attributes, so that the insides are reached too.
fn attributes() -> impl Strategy<Value = Vec<u8>> {
    let leaf = any_bytes().prop_map(|bytes| bytes.into_iter().take(40).collect::<Vec<u8>>());
    leaf.prop_recursive(4, 40, 8, |inner| {
        proptest::collection::vec((0_u16..12, inner), 0..8).prop_map(|attrs| {
            let list =
                attrs.iter().fold(attr::Attrs::default(), |list, (kind, value)| list.bytes(*kind, value));
            list.as_bytes().to_vec()
        })
    })
}

proptest! {
    #[test]
    fn any_datagram_is_answers_or_a_refusal(bytes in any_bytes(), sequence in 0_u32..3) {
        let mut answers = Vec::new();
        let _ = collect(&bytes, sequence, &mut answers);
        let _ = hardware_counters(&bytes);
        prop_assert!(attr::each(&bytes).count() <= bytes.len());
    }

    #[test]
    fn any_answer_is_a_report(head in any_bytes(), attributes in attributes(), acknowledge: bool) {
        let mut bytes: Vec<u8> = head.into_iter().chain([0; 20]).take(4).collect();
        bytes.extend(attributes);
        let nonsense = Nonsense { bytes, sequence: [0; 4], acknowledge };
        let mut netlink = Netlink::new(Box::new(nonsense.clone()));
        let _ = link::all(&mut netlink);
        let link = link::Link {
            index: 1,
            name: "x".to_owned(),
            kind: None,
            up: true,
            promiscuity: 0,
            xdp_attached: None,
        };
        let mut nic = Nic { netlink, link };
        let report = nic.report();
        for plan in ["auto", "channels=max,rx-ring=max,rss=symmetric,tunnel-hash=on,ntuple=on,busy-poll=on"] {
            let _ = report.rows(&Plan::parse(plan).unwrap(), 4);
        }
        let _ = serde_json::to_string(&report).unwrap();
        let _ = Machine::of(&mut nonsense.clone()).rows();
    }
}
