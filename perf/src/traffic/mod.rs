//! The traffic that measurements are made with: made-up connections, or a capture over and over.
//!
//! - [`connections`]: the connections, frame by frame
//! - [`sender`]: sends traffic out of an interface at a rate, from the kernel
//! - [`socket`]: the same through an AF_XDP socket
//! - [`tunnel`]: what connections may be in

pub mod connections;
pub mod sender;
pub mod socket;
pub mod tunnel;

use crate::capture::{START_NS, Template, address_places};
use anyhow::{Context, bail};
use connections::{Connections, Shape};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use tunnel::Tunnel;
use wirespan_bpf::generate::{Generator, RECORDED_FRAME_MAX, Recorded};
use wirespan_capture::LinkType;
use wirespan_capture::pcap_file::{Resolution, Writer};

/// Frames of a capture that the kernel keeps, of 2 KiB each.
const RECORDED_MAX: usize = 200_000;

/// What traffic to make.
#[derive(Clone, Debug, clap::Args)]
pub struct TrafficArgs {
    /// Bytes of a frame with data, without checksum and tunnel; from 118 on it is an HTTP request or response
    #[arg(long, default_value_t = 64, value_name = "BYTES")]
    pub size: usize,

    /// TCP connections at the same time
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub flows: u32,

    /// Connections per second that are replaced by new ones, at the rate asked for
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub new_flows: u64,

    /// Data is nothing that is understood, instead of HTTP
    #[arg(long)]
    pub opaque: bool,

    /// What the connections are in
    #[arg(long, value_enum, default_value_t)]
    pub tunnel: Tunnel,

    /// Instead of all that, a capture of Ethernet frames over and over; its addresses move, so that each copy has new flows
    #[arg(long, value_name = "CAPTURE")]
    pub input: Option<PathBuf>,
}

impl TrafficArgs {
    /// Connections of this size and number.
    pub fn connections(size: usize, flows: u32) -> Self {
        Self { size, flows, new_flows: 0, opaque: false, tunnel: Tunnel::None, input: None }
    }

    /// One connection of which nothing is understood.
    pub fn elephant(size: usize) -> Self {
        Self { opaque: true, ..Self::connections(size, 1) }
    }

    /// The same traffic from a capture.
    pub fn capture(input: &Path) -> Self {
        Self { input: Some(input.to_owned()), ..Self::connections(64, 1) }
    }

    /// What it is, in a few words.
    pub fn name(&self) -> String {
        if let Some(input) = &self.input {
            return input.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        }
        let plural = if self.flows == 1 { "" } else { "s" };
        let mut name = format!("{} B, {} flow{plural}", self.size, short(u64::from(self.flows)));
        if self.new_flows > 0 {
            name += &format!(", {} new/s", short(self.new_flows));
        }
        if self.opaque {
            name += ", opaque";
        }
        if self.tunnel != Tunnel::None {
            name += &format!(", {}", self.tunnel.name());
        }
        name
    }

    /// The connections, when `rate` frames are sent in a second.
    pub fn connections_at(&self, rate: f64) -> anyhow::Result<Connections> {
        let new_every = match self.new_flows {
            0 => 0,
            new => ((rate / new as f64).round() as u32).max(1),
        };
        let shape =
            Shape { size: self.size, flows: self.flows, new_every, tunnel: self.tunnel, opaque: self.opaque };
        Connections::new(shape)
    }

    /// The program in the kernel that makes this traffic.
    pub fn generator(&self, rate: f64, ifindex: u32) -> anyhow::Result<Generator> {
        if let Some(input) = &self.input {
            return Ok(Generator::repeat(ifindex, &recorded(input)?)?);
        }
        let connections = self.connections_at(rate)?;
        let (settings, templates) = connections.for_kernel();
        Ok(Generator::flows(ifindex, settings, templates)?)
    }

    /// The same traffic, made here.
    pub fn frames(&self, rate: f64) -> anyhow::Result<Frames> {
        Ok(match &self.input {
            Some(input) => Frames::Repeated { frames: recorded(input)?, at: 0, copy: 0 },
            None => Frames::Connections(self.connections_at(rate)?),
        })
    }

    /// Writes the first `packets` frames as a capture, as if `rate` had been sent in a second.
    pub fn write(&self, packets: u64, rate: f64, path: &Path) -> anyhow::Result<()> {
        if let Some(input) = &self.input {
            Template::read(input)?.repeat(packets, path)?;
            return Ok(());
        }
        let cannot = || format!("cannot write {}", path.display());
        let mut connections = self.connections_at(rate)?;
        let file = BufWriter::with_capacity(1 << 20, File::create(path).with_context(cannot)?);
        let mut writer =
            Writer::new(file, LinkType::Ethernet, Resolution::Nanoseconds).with_context(cannot)?;
        let mut frame = Vec::new();
        for number in 0..packets {
            connections.next(&mut frame);
            let ts_ns = START_NS + (number as f64 * 1e9 / rate) as u64;
            writer.write(ts_ns, frame.len() as u32, &frame).with_context(cannot)?;
        }
        writer.finish().with_context(cannot)?;
        Ok(())
    }
}

/// Frame after frame without end, the same as the programs in the kernel make.
pub enum Frames {
    /// Of connections.
    Connections(Connections),
    /// Of a capture.
    Repeated {
        /// One copy.
        frames: Vec<Recorded>,
        /// Which comes next.
        at: usize,
        /// Copies before this one, by which the addresses move.
        copy: u16,
    },
}

impl Frames {
    /// Writes the next frame where there is room for [`FRAME_MAX`](wirespan_bpf::generate::FRAME_MAX) bytes, and gives its length.
    pub fn write(&mut self, to: &mut [u8]) -> usize {
        match self {
            Self::Connections(connections) => connections.write(to),
            Self::Repeated { frames, at, copy } => {
                if *at == frames.len() {
                    *at = 0;
                    *copy = copy.wrapping_add(1);
                }
                let Recorded { len, places, bytes } = &frames[*at];
                *at += 1;
                let frame = &mut to[..*len as usize];
                frame.copy_from_slice(&bytes[..*len as usize]);
                for place in places.iter().map(|place| usize::from(*place)).filter(|place| *place > 0) {
                    let Some(octets) = frame.get_mut(place..place + 2) else { continue };
                    for (octet, more) in octets.iter_mut().zip(copy.to_be_bytes()) {
                        *octet = octet.wrapping_add(more);
                    }
                }
                frame.len()
            }
        }
    }
}

/// 1000 as 1k, 1000000 as 1M.
pub fn short(number: u64) -> String {
    match number {
        n if n >= 1_000_000 && n % 1_000_000 == 0 => format!("{}M", n / 1_000_000),
        n if n >= 1_000 && n % 1_000 == 0 => format!("{}k", n / 1_000),
        n => n.to_string(),
    }
}

/// The frames of a capture as the kernel repeats them; those that are too long for it are cut.
fn recorded(path: &Path) -> anyhow::Result<Vec<Recorded>> {
    let template = Template::read(path)?;
    let frames: Vec<_> = template.frames().take(RECORDED_MAX).map(record).collect();
    if frames.is_empty() {
        bail!("{} holds no frame", path.display());
    }
    Ok(frames)
}

fn record(frame: &[u8]) -> Recorded {
    let len = frame.len().min(RECORDED_FRAME_MAX);
    let mut bytes = [0; RECORDED_FRAME_MAX];
    bytes[..len].copy_from_slice(&frame[..len]);
    let places = address_places(&frame[..len]).unwrap_or_default().map(|place| place as u16);
    Recorded { len: len.max(connections::FRAME_MIN) as u32, places, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::fixture;

    #[test]
    fn names_say_what_differs() {
        let mut args = TrafficArgs::connections(64, 100_000);
        assert_eq!(args.name(), "64 B, 100k flows");
        (args.new_flows, args.tunnel) = (1_500, Tunnel::Vxlan);
        assert_eq!(args.name(), "64 B, 100k flows, 1500 new/s, VXLAN");
        assert_eq!(TrafficArgs::capture(Path::new("a/shop.pcap")).name(), "shop");
    }

    #[test]
    fn the_same_capture_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["one", "two"].map(|name| dir.path().join(name));
        for file in &files {
            TrafficArgs { new_flows: 1_000, ..TrafficArgs::connections(100, 50) }
                .write(1_000, 1e6, file)
                .unwrap();
        }
        let [one, two] = files.map(|file| std::fs::read(file).unwrap());
        assert!(one.len() > 1_000 * 60 && one == two);
    }

    #[test]
    fn a_repeated_capture_moves_its_addresses() {
        let frames = recorded(&fixture()).unwrap();
        let mut generator = match Generator::repeat(1, &frames[..3]) {
            Ok(generator) => generator,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "{error}");
                return eprintln!("skipped: {error}");
            }
        };
        let mut here = Frames::Repeated { frames: frames[..3].to_vec(), at: 0, copy: 0 };
        let mut made = Vec::new();
        for number in 0..9 {
            let mut frame = vec![0; RECORDED_FRAME_MAX];
            let len = here.write(&mut frame);
            frame.truncate(len);
            assert_eq!(generator.frame().unwrap(), frame, "frame {number}");
            made.push(frame);
        }
        for (copy, numbers) in [(1, 3..6), (2, 6..9)] {
            for number in numbers {
                let Recorded { len, places, bytes } = &frames[number % 3];
                let mut expected = bytes[..*len as usize].to_vec();
                for place in places.iter().filter(|place| **place > 0) {
                    let octet = &mut expected[usize::from(*place) + 1];
                    *octet = octet.wrapping_add(copy);
                }
                assert_eq!(made[number], expected);
            }
        }
    }
}
