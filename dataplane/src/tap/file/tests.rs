use super::*;

const FULL: &str = "
dedup: 5ms
taps:
  - name: core-1 uplink
    id: 7
    kind: physical-port
    device: core-1
    port: Eth1/49
    site: fra1
    dedup: true
    match: {interface: eth2, vlan: [100-199, 300]}
  - name: hypervisors
    kind: hypervisor
    match:
      vxlan: 5001
      outer_source: [10.9.0.0/16, '2001:db8::/32']
      source_mac: 02:00:00:00:00:00-02:00:00:ff:ff:ff
      destination_mac: 02:00:00:00:00:01
  - {name: plain, kind: nic, dedup: false, match: {gre_key: 0}}
";

#[test]
fn reads_every_field() {
    let taps = Taps::parse(FULL).unwrap();
    let [core, hypervisors, plain] = taps.taps.as_slice() else { panic!("{taps:?}") };
    assert_eq!((core.id, core.name.as_str(), core.kind.as_str()), (7, "core-1 uplink", "physical-port"));
    assert_eq!((core.device.as_str(), core.port.as_str(), core.site.as_str()), ("core-1", "Eth1/49", "fra1"));
    assert_eq!(core.conditions.vlan, Some(vec![100..=199, 300..=300]));
    assert_eq!((hypervisors.id, plain.id), (2, 3));
    assert_eq!(hypervisors.conditions.tunnel, Some((TunnelKind::Vxlan, vec![5001..=5001])));
    assert_eq!(hypervisors.conditions.source_mac, Some(vec![0x0200_0000_0000..=0x0200_00ff_ffff]));
    let networks = hypervisors.conditions.outer_source.as_ref().unwrap();
    assert!(networks[0].contains(0x0a09_1234, false) && !networks[0].contains(0x0a0a_0000, false));
    assert!(!networks[0].contains(0x0a09_1234, true) && networks[1].contains(0x2001_0db8 << 96 | 1, true));
    let windows: Vec<_> = taps.taps.iter().map(|tap| tap.dedup.map(|window| window.as_millis())).collect();
    assert_eq!((windows, taps.dedup), (vec![Some(10), Some(5), None], Some(Duration::from_millis(5))));
}

/// One tap with these lines.
fn tap(lines: &str) -> String {
    format!("taps:\n  - name: a\n{}", lines.lines().map(|line| format!("    {line}\n")).collect::<String>())
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_what_is_allowed() {
    let told = |text: &str| Taps::parse(text).unwrap_err().to_string();
    let in_match = |condition: &str| told(&tap(&format!("kind: nic\nmatch: {{{condition}}}")));
    let all = [
        told(""),
        told("taps: ["),
        told("tap: []"),
        told("taps: 5"),
        told("taps:\n- a"),
        told("dedup:\ntaps: []"),
        told(&tap("kind: router\nmatch: {vlan: 1}")),
        told(&tap("kind: nic\nmatch: {vlan: 1}\ncolour: red")),
        told(&tap("kind: nic")),
        told(&tap("kind: nic\nmatch: {}")),
        told(&tap("kind: nic\nmatch: 5")),
        told(&tap("kind:\nmatch: {vlan: 1}")),
        told(&tap("kind: [nic]\nmatch: {vlan: 1}")),
        told(&tap("kind: nic\ndevice:\nmatch: {vlan: 1}")),
        told(&tap("kind: nic\nid: 0\nmatch: {vlan: 1}")),
        told(&tap("kind: nic\nid: [1, 2]\nmatch: {vlan: 1}")),
        told(&tap("kind: nic\ndedup: 300ms\nmatch: {vlan: 1}")),
        in_match("vlan: 5000"),
        in_match("vlan: []"),
        in_match("vlan: [[1]]"),
        in_match("interface: eth1, vlan: "),
        in_match("interface: , vlan: 1"),
        in_match("interface: [eth1, eth2]"),
        in_match("vlan: 20-10"),
        in_match("vlan: {from: 1}"),
        in_match("vxlan: 1, geneve: 2"),
        in_match("vni: 1"),
        in_match("source_mac: 1-2"),
        in_match("outer_source: 10.0.0.0/33"),
        told(&format!(
            "{}  - {{name: a, kind: nic, match: {{vlan: 2}}}}",
            tap("kind: nic\nmatch: {vlan: 1}")
        )),
        told(&format!(
            "{}  - {{name: b, kind: nic, match: {{vlan: 2}}}}",
            tap("kind: nic\nid: 2\nmatch: {vlan: 1}")
        )),
        told(&format!("{}    name: b\n", tap("kind: nic\nmatch: {vlan: 1}"))),
        told(&tap("kind: nic\nmatch: *nothing")),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let error = Taps::read(Path::new("no-such-taps.yaml")).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the taps file no-such-taps.yaml: "), "{error}");
}

#[test]
fn too_many_taps_are_refused() {
    let one = |n: usize| format!("  - {{name: n{n}, kind: nic, match: {{vxlan: {n}}}}}\n");
    let of = |taps: usize| format!("taps:\n{}", (0..taps).map(one).collect::<String>());
    assert_eq!(Taps::parse(&of(MAX_TAPS)).unwrap().taps.len(), MAX_TAPS);
    assert!(Taps::parse(&of(MAX_TAPS + 1)).is_err());
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(taps|name|kind|match|vlan|nic|id|[-:{}\\[\\],&* \n0-9a-f]){0,60}") {
        let _ = Taps::parse(&text);
    }
}
