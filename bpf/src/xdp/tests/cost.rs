//! What the program's parts cost. Run as root with `--ignored --nocapture`.

use wirespan_frame::{Shunt, ShuntKey, ShuntMode};

use super::kernel::{Kernel, may_load};
use super::packets::*;
use super::{key, v4};
use wirespan_frame::{Filter, Rules};

use crate::xdp::XdpOptions;

#[test]
#[ignore = "prints timings"]
fn nanoseconds_for_a_frame() {
    if !may_load() {
        return;
    }
    let plain = frame(&v4().tcp(ACK, 1, 1, 10));
    let tunnelled = vxlan(77, &plain);
    let port = Rules { ports: [1].into(), ..Rules::default() };
    let network = Rules { networks: ["172.16.0.0/12".parse().unwrap()].into(), ..Rules::default() };
    let none = XdpOptions::default();
    let hash = XdpOptions { flow_hash: true, ..none.clone() };
    let denying = |deny| XdpOptions { filter: Some(Filter { deny, ..Filter::default() }), ..none.clone() };
    let shunt = XdpOptions { shunt_flows: 65536, ..none.clone() };
    let all =
        XdpOptions { flow_hash: true, shunt_flows: 65536, sample: Some(0.999), ..denying(network.clone()) };
    let combinations = [
        ("nothing but the stamp", none.clone()),
        ("hash", hash.clone()),
        ("hash, sample", XdpOptions { sample: Some(0.999), ..hash }),
        ("filter, no rules", denying(Rules::default())),
        ("filter, ports", denying(port)),
        ("filter, networks", denying(network)),
        ("shunt, other flows", shunt),
        ("all of it", all),
    ];
    for (name, options) in combinations {
        let kernel = Kernel::new(&options);
        if let Some(filter) = &options.filter {
            kernel.filter().set(filter).unwrap();
        }
        let cost = |frame: &[u8]| kernel.cost_ns(frame, 2_000_000);
        let (plain_ns, tunnelled_ns) = (cost(&plain), cost(&tunnelled));
        print!("{name:24} {plain_ns:4} ns   in VXLAN {tunnelled_ns:4} ns");
        if options.shunt_flows != 0 {
            for key in [ShuntKey { tunnel_kind: 0, tunnel_id: 0, ..key() }, key()] {
                assert!(kernel.shunt().shunt(&key, ShuntMode::Count));
            }
            print!("   shunted {:4} ns   in VXLAN {:4} ns", cost(&plain), cost(&tunnelled));
        }
        println!();
    }
}
