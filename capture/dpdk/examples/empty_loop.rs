//! What DPDK and this crate cost per frame: loops that take frames and do nothing with them.
//!
//! `cargo run --release -p wirespan-dpdk --example empty_loop` prints frames per second of one thread: a device that
//! makes up frames (`net_null`), an injecting and a taking end of a ring on the same CPU (`net_ring`), and a capture
//! file that is repeated from memory (`net_pcap`, when a file is given).

use std::error::Error;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use wirespan_capture::PacketSource;
use wirespan_dpdk::transmit::open_to_send;
use wirespan_dpdk::{Eal, EalOptions, PortOptions};

const HOW_LONG: Duration = Duration::from_secs(2);
const BURST: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let mut vdevs = vec!["net_null0,size=64".to_owned(), "net_ring0".to_owned()];
    let capture = std::env::args().nth(1);
    vdevs.extend(capture.as_ref().map(|file| format!("net_pcap0,rx_pcap={file},infinite_rx=1")));
    let eal = Eal::start(&EalOptions { no_huge: true, no_pci: true, vdevs, ..EalOptions::default() })?;

    report(
        "net_null, 64 bytes",
        take_for(&mut wirespan_dpdk::port::open(eal, &PortOptions::new("net_null0"))?[0])?,
    );
    let (mut sources, mut transmitters) = open_to_send(eal, &PortOptions::new("net_ring0"))?;
    let frame = [0xee; 60];
    let burst = [IoSlice::new(&frame); BURST];
    let (source, transmitter) = (&mut sources[0], &mut transmitters[0]);
    let rate = rate(|| {
        transmitter.send(&burst);
        Ok(source.next_batch()?.map_or(0, |batch| batch.len()))
    })?;
    report("net_ring, 60 bytes, sent and taken", rate);
    if capture.is_some() {
        report(
            "net_pcap, repeated",
            take_for(&mut wirespan_dpdk::port::open(eal, &PortOptions::new("net_pcap0"))?[0])?,
        );
    }
    Ok(())
}

fn take_for(source: &mut dyn PacketSource) -> Result<f64, Box<dyn Error>> {
    rate(|| Ok(source.next_batch()?.map_or(0, |batch| batch.len())))
}

/// Frames per second that `step` handles.
fn rate(mut step: impl FnMut() -> Result<usize, Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
    let (start, mut frames) = (Instant::now(), 0);
    while start.elapsed() < HOW_LONG {
        for _ in 0..100 {
            frames += step()?;
        }
    }
    Ok(frames as f64 / start.elapsed().as_secs_f64())
}

fn report(what: &str, rate: f64) {
    println!("{what}: {:.1} million frames/s", rate / 1e6);
}
