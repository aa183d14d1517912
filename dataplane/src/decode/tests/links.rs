//! Link layers and tags.

use super::*;

#[test]
fn decodes_every_link_type() {
    let sll = layers(&[&[0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0], &sample()]);
    let sll2 = layers(&[&[8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6], &[0; 8], &sample()]);
    assert_sample(LinkType::Ethernet, &ethernet(0x0800, &sample()));
    assert_sample(LinkType::Ethernet, &ethernet(0x86dd, &sample_v6()));
    assert_sample(LinkType::RawIp, &sample());
    assert_sample(LinkType::RawIp, &sample_v6());
    assert_sample(LinkType::LinuxSll, &sll);
    assert_sample(LinkType::LinuxSll2, &sll2);
    assert_sample(LinkType::Null, &layers(&[&[2, 0, 0, 0], &sample()]));
    assert_sample(LinkType::Null, &layers(&[&[0, 0, 0, 30], &sample_v6()]));
    assert_sample(LinkType::Loop, &layers(&[&[0, 0, 0, 24], &sample_v6()]));
}

#[test]
fn counts_what_carries_no_ip_by_reason() {
    let mut decoder = Decoder::new(DecodeConfig::default());
    let mut reason = |link, data: &[u8]| decoder.decode(&frame_of(link, data)).unwrap_err();
    let netlink = layers(&[&[0, 4, 3, 0x38, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &sample()]);
    assert_eq!(reason(LinkType::Other(147), &sample()), DropReason::UnknownLink);
    assert_eq!(reason(LinkType::LinuxSll, &netlink), DropReason::UnknownLink);
    assert_eq!(reason(LinkType::Loop, &[0, 0, 0, 99, 0x45]), DropReason::UnknownLink);
    assert_eq!(reason(LinkType::RawIp, &[0x10; 40]), DropReason::Malformed);
    for ethertype in [0x0806, 0x8035] {
        assert_eq!(drop_reason(&ethernet(ethertype, &[0; 46])), DropReason::Arp);
    }
    for ethertype in [0x8809, 0x8863, 0x888e, 0x88cc, 0x88f7, 0x9000] {
        assert_eq!(drop_reason(&ethernet(ethertype, &[0; 46])), DropReason::L2Control);
    }
    assert_eq!(drop_reason(&ethernet(0x1234, &[0; 46])), DropReason::UnknownLink);
}

#[test]
fn every_cut_inside_the_headers_is_truncated() {
    let data = ethernet(0x8100, &layers(&[&[0, 5, 8, 0], &ipv4(6, &tcp(1, 2, &[], b""))]));
    for len in 0..data.len() {
        assert_eq!(drop_reason(&data[..len]), DropReason::Truncated, "{len} bytes");
    }
}

#[test]
fn reports_the_outermost_vlan() {
    let tagged = |outer: u16| ethernet(outer, &layers(&[&[0x20, 7, 0x81, 0, 0, 8, 8, 0], &sample()]));
    for outer in [0x8100, 0x88a8, 0x9100] {
        assert_eq!(assert_sample(LinkType::Ethernet, &tagged(outer)), Some(7));
    }
    let priority = ethernet(0x8100, &layers(&[&[0x20, 0, 8, 0], &sample()]));
    assert_eq!(assert_sample(LinkType::Ethernet, &priority), None);

    let stripped = tagged(0x8100);
    let mut frame = frame_of(LinkType::Ethernet, &stripped);
    frame.hints.vlan_tci = Some(0xe009);
    assert_eq!(with_packet(&frame, |packet| packet.vlan), Some(9));
}

#[test]
fn endless_tags_are_too_deep() {
    assert_eq!(drop_reason(&ethernet(0x8100, &[0, 5, 0x81, 0].repeat(300))), DropReason::TooDeep);
    assert_eq!(drop_reason(&ethernet(0x8847, &[0; 2000])), DropReason::TooDeep);
    let nested = (0..200).fold(sample(), |inner, _| ethernet(0x6558, &inner));
    assert_eq!(drop_reason(&nested), DropReason::TooDeep);
}

#[test]
fn follows_mpls_to_ip_and_to_pseudowires() {
    let labels = [0, 1, 0, 64, 0, 2, 1, 64];
    let carried = [
        sample(),
        sample_v6(),
        ethernet(0x0800, &sample()),
        layers(&[&[0, 0, 0, 9], &ethernet(0x0800, &sample())]),
    ];
    for inside in carried {
        assert_sample(LinkType::Ethernet, &ethernet(0x8847, &layers(&[&labels, &inside])));
    }
    let oam = layers(&[&labels, &[0x10, 0, 0, 0]]);
    assert_eq!(drop_reason(&ethernet(0x8847, &oam)), DropReason::L2Control);
    assert_eq!(drop_reason(&ethernet(0x8847, &labels)), DropReason::Truncated);
}

#[test]
fn follows_pppoe_sessions() {
    let session = |protocol: [u8; 2], inside: &[u8]| {
        let len = (inside.len() as u16 + 2).to_be_bytes();
        ethernet(0x8864, &layers(&[&[0x11, 0, 0, 1], &len, &protocol, inside]))
    };
    assert_sample(LinkType::Ethernet, &session([0, 0x21], &sample()));
    assert_sample(LinkType::Ethernet, &session([0, 0x57], &sample_v6()));
    assert_eq!(drop_reason(&session([0xc0, 0x21], &[1; 8])), DropReason::L2Control);
    assert_eq!(drop_reason(&ethernet(0x8864, &[0x21; 40])), DropReason::Malformed);
}

#[test]
fn follows_llc_and_snap() {
    let llc = |header: &[u8], inside: &[u8]| {
        let frame = layers(&[header, inside]);
        ethernet(frame.len() as u16, &layers(&[&frame, &[0xff; 9]]))
    };
    assert_sample(LinkType::Ethernet, &llc(&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &sample()));
    assert_sample(LinkType::Ethernet, &llc(&[6, 6, 3], &sample()));
    assert_eq!(drop_reason(&llc(&[0x42, 0x42, 3], &[0; 35])), DropReason::L2Control);
    assert_eq!(drop_reason(&llc(&[0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0], &[0; 35])), DropReason::L2Control);
    assert_eq!(drop_reason(&llc(&[0xe0, 0xe0, 3], &[0; 35])), DropReason::UnknownLink);
}
