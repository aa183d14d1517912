use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Mutex;

use wirespan_frame::LinkType;

use super::*;
use crate::pcap_file::{PcapFile, Resolution, Writer};
use crate::{PacketSource, SourceStats};

/// One frame: which flow, its number in the flow.
type Seen = (u16, u32);

/// A UDP packet that carries its number; `fragment` is flags and offset, and only first fragments carry ports.
fn packet(port: u16, number: u32, id: u16, fragment: u16) -> Vec<u8> {
    let [p0, p1] = port.to_be_bytes();
    let ([i0, i1], [f0, f1]) = (id.to_be_bytes(), fragment.to_be_bytes());
    let mut packet = vec![0x45, 0, 0, 36, i0, i1, f0, f1, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    if fragment & 0x1fff == 0 {
        packet.extend([p0, p1, 0, 53, 0, 16, 0, 0]);
    } else {
        packet.extend([0; 8]);
    }
    packet.extend(number.to_be_bytes());
    packet.extend([p0, p1, 0, 0]);
    packet
}

fn seen(data: &[u8]) -> Seen {
    (u16::from_be_bytes([data[32], data[33]]), u32::from_be_bytes(data[28..32].try_into().unwrap()))
}

fn write(path: &Path, packets: impl Iterator<Item = Vec<u8>>) {
    let mut writer =
        Writer::new(File::create(path).unwrap(), LinkType::RawIp, Resolution::Nanoseconds).unwrap();
    for (number, packet) in packets.enumerate() {
        let ts_ns = 1_700_000_000_000_000_000 + number as u64 * 1_000_000;
        writer.write(ts_ns, packet.len() as u32, &packet).unwrap();
    }
    writer.finish().unwrap();
}

/// What each worker saw, and all times that it heard of, by its own frames and by others'.
fn spread(files: &[&Path], workers: usize) -> (Vec<Vec<Seen>>, Vec<Vec<u64>>, SourceStats) {
    let ends =
        super::files(&files.iter().map(|path| path.to_path_buf()).collect::<Vec<_>>(), &[], workers).unwrap();
    let result = Mutex::new((vec![Vec::new(); workers], vec![Vec::new(); workers], SourceStats::default()));
    std::thread::scope(|scope| {
        for (index, mut end) in ends.into_iter().enumerate() {
            let result = &result;
            scope.spawn(move || {
                let (mut frames, mut times) = (Vec::new(), Vec::new());
                while let Some(batch) = end.next_batch().unwrap() {
                    let mut marks = batch.marks().iter().peekable();
                    for (index, frame) in batch.frames().enumerate() {
                        while let Some(mark) = marks.next_if(|mark| mark.before <= index) {
                            times.push(mark.ns);
                        }
                        times.push(frame.ts_ns);
                        frames.push(seen(frame.data));
                    }
                    times.extend(marks.map(|mark| mark.ns));
                }
                let stats = end.stats();
                assert_eq!(stats.received, frames.len() as u64);
                let mut result = result.lock().unwrap();
                if index == 0 {
                    result.2 = stats;
                }
                (result.0[index], result.1[index]) = (frames, times);
            });
        }
    });
    result.into_inner().unwrap()
}

#[test]
fn nothing_is_lost_or_doubled_and_flows_keep_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
    const FLOWS: u32 = 97;
    const PACKETS: u32 = 150_000;
    // Port 1 has every second packet: one worker is far behind the others.
    let make = |from: u32| {
        (from..from + PACKETS).map(|number| {
            let port = if number.is_multiple_of(2) { 1 } else { 2 + (number / 2 % FLOWS) as u16 };
            packet(port, number, 0, 0)
        })
    };
    write(&one, make(0));
    write(&two, make(PACKETS));
    for workers in [1, 2, 3, 8] {
        let (frames, times, stats) = spread(&[&one, &two], workers);
        assert_eq!(frames.iter().map(Vec::len).sum::<usize>(), 2 * PACKETS as usize);
        assert_eq!(stats.unreadable, []);
        let mut last: HashMap<u16, (usize, u32)> = HashMap::new();
        for (worker, frames) in frames.iter().enumerate() {
            for &(port, number) in frames {
                if let Some((before, at)) = last.insert(port, (worker, number)) {
                    assert!(before == worker && at < number, "flow {port} at {number}");
                }
            }
        }
        assert_eq!(last.len(), FLOWS as usize + 1);
        for times in &times {
            let span_ns = times.last().unwrap() - times[0];
            assert!(span_ns > u64::from(PACKETS - 200) * 1_000_000, "{span_ns}");
            let step = |pair: &[u64]| pair[1].checked_sub(pair[0]).is_some_and(|ns| ns <= 100_000_000);
            let steps = times.windows(2).filter(|pair| !step(pair)).count();
            assert_eq!(steps, 1, "but for the second file, whose time is that of the first");
        }
    }
}

#[test]
fn fragments_go_where_their_first_goes_also_when_it_comes_late() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fragments");
    let datagram = |number: u32| {
        let (port, id) = ((number % 50) as u16 + 1, number as u16);
        let first = packet(port, number * 2, id, 0x2000);
        let last = packet(port, number * 2 + 1, id, 2);
        if number.is_multiple_of(3) { [last, first] } else { [first, last] }
    };
    write(&path, (0..20_000).flat_map(datagram));
    let (frames, ..) = spread(&[&path], 4);
    assert_eq!(frames.iter().map(Vec::len).sum::<usize>(), 40_000);
    let mut workers: HashMap<u16, usize> = HashMap::new();
    for (worker, frames) in frames.iter().enumerate() {
        assert!(!frames.is_empty());
        for &(port, number) in frames {
            assert_eq!(*workers.entry(port).or_insert(worker), worker, "packet {number} of flow {port}");
        }
        for pair in frames.windows(2) {
            let late = pair[0].1 == pair[1].1 + 1 && (pair[1].1 / 2).is_multiple_of(3);
            assert!(pair[0].1 < pair[1].1 || late, "{pair:?}");
        }
    }
}

#[test]
fn fragments_without_a_first_are_not_kept_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("strays");
    write(&path, (0..5_000).map(|number| packet(1, number, number as u16, 2)));
    let (frames, ..) = spread(&[&path], 3);
    assert_eq!(frames.iter().map(Vec::len).sum::<usize>(), 5_000);
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_once_and_the_end_for_the_others() {
    let mut ends = files(&["/nonexistent/capture.pcap".into()], &[], 2).unwrap();
    assert!(matches!(ends[1].next_batch(), Err(CaptureError::OpenFile { .. })));
    assert!(ends[0].next_batch().unwrap().is_none() && ends[1].next_batch().unwrap().is_none());
}

#[test]
fn a_worker_that_is_gone_does_not_hold_up_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("many");
    write(&path, (0..100_000).map(|number| packet((number % 50) as u16 + 1, number, 0, 0)));
    let mut ends = files(&[path], &[], 2).unwrap();
    let first = ends[0].next_batch().unwrap().unwrap().len();
    assert!(first > 0);
    drop(ends.remove(0));
    let mut seen = 0;
    while let Some(batch) = ends[0].next_batch().unwrap() {
        seen += batch.len();
    }
    assert!(seen > 10_000 && seen < 90_000, "{seen}");
}

#[test]
fn one_worker_sees_what_the_file_has() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dataplane/tests/fixtures/shop.pcap");
    let lengths = |source: &mut dyn PacketSource| {
        let mut lengths = Vec::new();
        while let Some(batch) = source.next_batch().unwrap() {
            lengths.extend(batch.frames().map(|frame| (frame.ts_ns, frame.data.to_vec())));
        }
        lengths
    };
    let whole = lengths(&mut PcapFile::open(&path).unwrap());
    assert!(whole.len() > 1_000);
    assert_eq!(lengths(&mut files(&[path], &[], 1).unwrap().remove(0)), whole);
}
