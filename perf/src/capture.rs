//! A long capture out of a short one: copies in which addresses have moved and time goes on, so that each makes new flows.

use anyhow::{Context, anyhow, bail};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use wirespan_capture::pcap_file::{PcapFile, Resolution, Writer};
use wirespan_capture::{LinkType, PacketSource};

/// Copies carry their number in two bytes of each address.
const COPIES_MAX: u64 = 1 << 16;
/// Where the long capture begins: 2023-11-14 22:13:20 UTC.
pub const START_NS: u64 = 1_700_000_000_000_000_000;
/// Captures that were joined, or silence in one: such a jump in time, forth or back, becomes a small step.
const JUMP_NS: u64 = 2_000_000_000;
const JUMP_BECOMES_NS: u64 = 1_000_000;

/// The conversation between real servers that the repository carries.
pub fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dataplane/tests/fixtures/shop.pcap")
}

/// The frames to repeat.
pub struct Template {
    bytes: Vec<u8>,
    frames: Vec<TemplateFrame>,
}

struct TemplateFrame {
    start: usize,
    len: usize,
    wire_len: u32,
    /// Time since the frame before.
    step_ns: u64,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Frames in the file.
    pub packets: u64,
    /// Their captured bytes.
    pub bytes: u64,
}

impl Template {
    /// Reads a capture of Ethernet frames whole.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let mut file = PcapFile::open(path)
            .map_err(|error| anyhow!("name a capture to repeat with --input: {error}"))?;
        let mut template = Self { bytes: Vec::new(), frames: Vec::new() };
        let mut last_ns = None;
        while let Some(batch) = file.next_batch()? {
            for frame in batch.frames() {
                if frame.link != LinkType::Ethernet {
                    bail!("{} holds frames that are not Ethernet; repeat another capture", path.display());
                }
                let step = last_ns.map_or(Some(0), |last| frame.ts_ns.checked_sub(last));
                template.frames.push(TemplateFrame {
                    start: template.bytes.len(),
                    len: frame.data.len(),
                    wire_len: frame.wire_len,
                    step_ns: step.filter(|step| *step < JUMP_NS).unwrap_or(JUMP_BECOMES_NS),
                });
                template.bytes.extend_from_slice(frame.data);
                last_ns = Some(frame.ts_ns);
            }
        }
        if template.frames.is_empty() {
            bail!("{} holds no frame that could be repeated", path.display());
        }
        Ok(template)
    }

    /// The frames, in order.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.frames.iter().map(|frame| &self.bytes[frame.start..frame.start + frame.len])
    }

    /// Writes as many whole copies as hold more than `packets` frames.
    pub fn repeat(&self, packets: u64, path: &Path) -> anyhow::Result<Written> {
        let copies = packets / self.frames.len() as u64 + 1;
        if copies > COPIES_MAX {
            bail!("{copies} copies would be needed, {COPIES_MAX} are possible; repeat a longer capture");
        }
        let cannot = || format!("cannot write {}", path.display());
        let file = BufWriter::with_capacity(1 << 20, File::create(path).with_context(cannot)?);
        self.write(copies as u16, file).with_context(cannot)
    }

    fn write(&self, copies: u16, output: impl Write) -> io::Result<Written> {
        let mut writer = Writer::new(output, LinkType::Ethernet, Resolution::Nanoseconds)?;
        let mut written = Written { packets: 0, bytes: 0 };
        let mut now_ns = START_NS;
        let mut moved = Vec::new();
        for copy in 0..copies {
            for TemplateFrame { start, len, wire_len, step_ns } in &self.frames {
                now_ns += step_ns;
                moved.clear();
                moved.extend_from_slice(&self.bytes[*start..start + len]);
                move_addresses(&mut moved, copy);
                writer.write(now_ns, *wire_len, &moved)?;
                written.packets += 1;
                written.bytes += *len as u64;
            }
        }
        writer.finish()?;
        Ok(written)
    }
}

/// Moves both addresses of an Ethernet frame by the copy's number: its low byte is added to the second octet of IPv4 and
/// the fourth of IPv6, its high byte to the octet before. Checksums stay as they are.
fn move_addresses(frame: &mut [u8], copy: u16) {
    let [high, low] = copy.to_be_bytes();
    for place in address_places(frame).into_iter().flatten() {
        frame[place] = frame[place].wrapping_add(high);
        frame[place + 1] = frame[place + 1].wrapping_add(low);
    }
}

/// Where in an Ethernet frame the two octets of each address are that differ from copy to copy.
pub fn address_places(frame: &[u8]) -> Option<[usize; 2]> {
    let mut at = 12;
    while let Some([0x81, 0x00] | [0x88, 0xa8]) = frame.get(at..at + 2) {
        at += 4;
    }
    let (header_bytes, places) = match frame.get(at..at + 2)? {
        [0x08, 0x00] => (20, [12, 16]),
        [0x86, 0xdd] => (40, [8 + 2, 24 + 2]),
        _ => return None,
    };
    frame.get(at + 2..at + 2 + header_bytes)?;
    Some(places.map(|place| at + 2 + place))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MAC addresses, tags, an IP header with these addresses.
    fn frame(tags: &[u8], ether_type: u16, before: usize, addresses: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend(tags);
        frame.extend(ether_type.to_be_bytes());
        frame.extend(vec![0x45; before]);
        frame.extend(addresses);
        frame
    }

    fn moved(mut frame: Vec<u8>, copy: u16) -> Vec<u8> {
        move_addresses(&mut frame, copy);
        frame
    }

    #[test]
    fn ipv4_addresses_move_and_nothing_else() {
        let at = |tags: &[u8], addresses| frame(tags, 0x0800, 12, addresses);
        assert_eq!(moved(at(&[], &[10, 0, 0, 1, 10, 255, 0, 2]), 0), at(&[], &[10, 0, 0, 1, 10, 255, 0, 2]));
        assert_eq!(moved(at(&[], &[10, 0, 0, 1, 10, 255, 0, 2]), 1), at(&[], &[10, 1, 0, 1, 10, 0, 0, 2]));
        assert_eq!(moved(at(&[], &[10, 0, 0, 1, 10, 9, 0, 2]), 257), at(&[], &[11, 1, 0, 1, 11, 10, 0, 2]));
        let tags = [0x88, 0xa8, 0, 7, 0x81, 0, 0, 9];
        assert_eq!(moved(at(&tags, &[10, 0, 0, 1, 10, 9, 0, 2]), 3), at(&tags, &[10, 3, 0, 1, 10, 12, 0, 2]));
    }

    #[test]
    fn ipv6_addresses_move() {
        let mut addresses = [0; 32];
        addresses[..4].copy_from_slice(&[0xfd, 0, 1, 2]);
        addresses[16..20].copy_from_slice(&[0xfd, 0, 3, 4]);
        let got = moved(frame(&[], 0x86dd, 8, &addresses), 0x0105);
        addresses[..4].copy_from_slice(&[0xfd, 0, 2, 7]);
        addresses[16..20].copy_from_slice(&[0xfd, 0, 4, 9]);
        assert_eq!(got, frame(&[], 0x86dd, 8, &addresses));
    }

    #[test]
    fn other_and_short_frames_stay() {
        for other in [
            frame(&[], 0x0806, 12, &[10; 8]),
            frame(&[], 0x0800, 12, &[10; 7]),
            frame(&[0x81, 0, 0, 9], 0x8100, 0, &[]),
            vec![2; 5],
        ] {
            assert_eq!(moved(other.clone(), 9), other);
        }
    }

    #[test]
    fn every_copy_has_other_flows_and_time_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (short, long) = (dir.path().join("short.pcap"), dir.path().join("long.pcap"));
        let mut writer =
            Writer::new(File::create(&short).unwrap(), LinkType::Ethernet, Resolution::Nanoseconds).unwrap();
        let data = frame(&[], 0x0800, 12, &[10, 0, 0, 1, 10, 9, 0, 2]);
        // One step of 5 ns, a jump of an hour, a jump back.
        for ts_ns in [1_000, 1_005, 3_600_000_000_000, 2_000] {
            writer.write(ts_ns, 99, &data).unwrap();
        }
        writer.finish().unwrap();

        let written = Template::read(&short).unwrap().repeat(4, &long).unwrap();
        assert_eq!(written, Written { packets: 8, bytes: 8 * data.len() as u64 });
        let mut file = PcapFile::open(&long).unwrap();
        let mut frames = Vec::new();
        while let Some(batch) = file.next_batch().unwrap() {
            frames.extend(batch.frames().map(|f| (f.ts_ns - START_NS, f.wire_len, f.data[27])));
        }
        let ms = 1_000_000;
        let first = [(0, 99, 0), (5, 99, 0), (5 + ms, 99, 0), (5 + 2 * ms, 99, 0)];
        assert_eq!(frames[..4], first);
        assert_eq!(frames[4..], first.map(|(t, len, _)| (t + 5 + 2 * ms, len, 1)));
    }

    #[test]
    fn the_fixture_is_there_and_too_many_copies_are_refused() {
        let template = Template::read(&fixture()).unwrap();
        let error = template.repeat(u64::MAX, Path::new("unused")).unwrap_err().to_string();
        assert!(error.contains("longer capture"), "{error}");
    }
}
