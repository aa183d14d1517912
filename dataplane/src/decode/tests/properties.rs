//! Properties over random input.

use super::*;
use proptest::prelude::*;

const LINKS: [LinkType; 6] = [
    LinkType::Ethernet,
    LinkType::RawIp,
    LinkType::Null,
    LinkType::Loop,
    LinkType::LinuxSll,
    LinkType::LinuxSll2,
];

/// What a header says that carries the bytes before it, outermost last.
#[derive(Clone, Copy, Debug)]
enum Layer {
    Vlan(u16),
    Ipip,
    IpipV6,
    Vxlan(u32),
    Gre(u32),
}

fn layer() -> impl Strategy<Value = Layer> {
    prop_oneof![
        (1u16..4095).prop_map(Layer::Vlan),
        Just(Layer::Ipip),
        Just(Layer::IpipV6),
        (0u32..1 << 24).prop_map(Layer::Vxlan),
        any::<u32>().prop_map(Layer::Gre),
    ]
}

/// Puts an IP packet into a layer; gives an IP packet again.
fn carry(layer: Layer, packet: &[u8]) -> Vec<u8> {
    let (next, ethertype, gre): (u8, u16, [u8; 4]) = match packet[0] >> 4 {
        4 => (4, 0x0800, [0x20, 0, 8, 0]),
        _ => (41, 0x86dd, [0x20, 0, 0x86, 0xdd]),
    };
    match layer {
        Layer::Ipip => ipv4(next, packet),
        Layer::IpipV6 => ipv6(next, packet),
        Layer::Gre(key) => ipv4(47, &layers(&[&gre, &key.to_be_bytes(), packet])),
        Layer::Vxlan(id) => {
            let header = layers(&[&[8, 0, 0, 0], &(id << 8).to_be_bytes()]);
            ipv4(17, &udp(50_000, 4789, &layers(&[&header, &ethernet(ethertype, packet)])))
        }
        Layer::Vlan(id) => {
            let tagged = layers(&[&id.to_be_bytes(), &ethertype.to_be_bytes(), packet]);
            ipv4(47, &layers(&[&[0, 0, 0x65, 0x58], &ethernet(0x8100, &tagged)]))
        }
    }
}

/// Cuts `bytes` at multiples of 8.
fn cut(bytes: &[u8], cuts: &[usize]) -> Vec<(u16, bool, Vec<u8>)> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut % bytes.len() / 8 * 8).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.dedup();
    at.windows(2)
        .map(|ends| (ends[0] as u16, ends[1] < bytes.len(), bytes[ends[0]..ends[1]].to_vec()))
        .collect()
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        link in 0..LINKS.len(),
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..20),
        wire_len in any::<u32>(),
    ) {
        let mut decoder = Decoder::new(DecodeConfig::default());
        for data in &frames {
            let frame = Frame { wire_len, ..frame_of(LINKS[link], data) };
            if let Ok(packet) = decoder.decode(&frame) {
                prop_assert!(packet.payload.len() <= packet.l4_len as usize);
                prop_assert!(packet.l4_len <= packet.l3_len);
            }
        }
    }

    #[test]
    fn changed_bytes_never_panic(
        carriers in prop::collection::vec(layer(), 0..6),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        len in any::<prop::sample::Index>(),
    ) {
        let mut data = carriers.iter().fold(sample(), |packet, &layer| carry(layer, &packet));
        for (at, value) in changes {
            let at = at.index(data.len());
            data[at] = value;
        }
        let mut decoder = Decoder::new(DecodeConfig::default());
        let _ = decoder.decode(&frame_of(LinkType::RawIp, &data));
        let _ = decoder.decode(&frame_of(LinkType::RawIp, &data[..len.index(data.len())]));
    }

    #[test]
    fn built_packets_decode_to_what_was_built(
        ports in any::<(u16, u16)>(),
        v6 in any::<bool>(),
        options in 0usize..10,
        payload in prop::collection::vec(any::<u8>(), 0..100),
        carriers in prop::collection::vec(layer(), 0..=MAX_TUNNELS as usize),
    ) {
        let segment = tcp(ports.0, ports.1, &[1; 40][..options * 4], &payload);
        let inner = if v6 { ipv6(6, &segment) } else { ipv4(6, &segment) };
        let data = carriers.iter().fold(inner, |packet, &layer| carry(layer, &packet));
        let mut decoder = Decoder::new(DecodeConfig::default());
        let packet = decoder.decode(&frame_of(LinkType::RawIp, &data)).unwrap();

        let (src, dst) = if v6 { V6 } else { V4 };
        prop_assert_eq!(packet.addresses, Addresses { src, dst, v6 });
        prop_assert_eq!((packet.src_port, packet.dst_port), ports);
        prop_assert_eq!((packet.l3_len, packet.l4_len), (segment.len() as u32, payload.len() as u32));
        prop_assert_eq!(packet.payload, &payload[..]);
        prop_assert_eq!(packet.wire_len, data.len() as u32);
        let innermost = carriers.first().map(|&layer| match layer {
            Layer::Vlan(_) => (TunnelKind::Gre, 0),
            Layer::Ipip | Layer::IpipV6 => (TunnelKind::Ipip, 0),
            Layer::Vxlan(id) => (TunnelKind::Vxlan, id),
            Layer::Gre(key) => (TunnelKind::Gre, key),
        });
        prop_assert_eq!(packet.tunnel.map(|tunnel| (tunnel.kind, tunnel.id)), innermost);
        let vlan = carriers.iter().find_map(|&layer| match layer {
            Layer::Vlan(id) => Some(Some(id)),
            Layer::Vxlan(_) => Some(None),
            _ => None,
        });
        prop_assert_eq!(packet.vlan, vlan.flatten());
    }

    #[test]
    fn fragments_in_any_order_and_cut_give_the_payload(
        payload in prop::collection::vec(any::<u8>(), 9..3000),
        cuts in prop::collection::vec(any::<usize>(), 1..20),
        v6 in any::<bool>(),
        order in any::<u64>(),
    ) {
        let datagram = udp(1000, 2000, &payload);
        let mut fragments = cut(&datagram, &cuts);
        prop_assume!(fragments.len() > 1);
        let mut random = order;
        fragments.sort_by_cached_key(|_| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            random >> 33
        });
        let frames: Vec<Vec<u8>> = fragments
            .iter()
            .map(|(offset, more, bytes)| if v6 {
                ipv6_fragment(5, *offset, *more, 17, bytes)
            } else {
                ipv4_fragment(*offset, *more, 17, bytes)
            })
            .collect();
        let mut decoder = Decoder::new(DecodeConfig::default());
        let (last, others) = frames.split_last().unwrap();
        for data in others {
            let waits = decoder.decode(&frame_of(LinkType::RawIp, data)).err();
            prop_assert_eq!(waits, Some(DropReason::Fragment));
        }
        let packet = decoder.decode(&frame_of(LinkType::RawIp, last)).unwrap();
        prop_assert_eq!(packet.payload, &payload[..]);
        prop_assert_eq!(packet.l3_len as usize, datagram.len());
        prop_assert_eq!(packet.wire_len as usize, frames.iter().map(Vec::len).sum::<usize>());
        decoder.finish();
        prop_assert_eq!(decoder.lost_fragments(), 0);
    }

    #[test]
    fn overlapping_fragments_never_panic_and_always_add_up(
        fragments in prop::collection::vec((0u16..12, any::<bool>(), 1usize..5, any::<bool>()), 1..60),
        datagrams_max in 1usize..3,
    ) {
        let fragment_limits = FragmentLimits { datagrams_max, ..FragmentLimits::default() };
        let mut decoder = Decoder::new(DecodeConfig { fragments: fragment_limits, ..DecodeConfig::default() });
        let (mut waiting, mut packets) = (0, 0);
        for &(offset, more, units, second) in &fragments {
            let protocol = if second { 50 } else { 51 };
            let data = ipv4_fragment(offset * 8, more, protocol, &vec![0; units * 8]);
            match decoder.decode(&frame_of(LinkType::RawIp, &data)) {
                Ok(_) => packets += 1,
                Err(DropReason::Fragment) => waiting += 1,
                Err(_) => {}
            }
        }
        decoder.finish();
        prop_assert!(decoder.lost_fragments() <= waiting);
        prop_assert!(packets <= fragments.len());
    }
}
