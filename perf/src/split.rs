//! A capture by protocol: one file with the packets of each.

use anyhow::Context;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::BufWriter;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use wirespan_capture::pcap_file::{PcapFile, Resolution, Writer};
use wirespan_capture::{LinkType, PacketSource};
use wirespan_dataplane::decode::Decoder;
use wirespan_dataplane::{Worker, WorkerConfig};
use wirespan_records::Records;

type Ends = [(IpAddr, u16); 2];

/// Writes the packets of the flows of each L7 protocol in `input` to files of their own.
pub fn by_protocol(input: &Path, dir: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let protocols = protocols(input)?;
    let mut decoder = Decoder::new(WorkerConfig::default().decode);
    let mut writers = BTreeMap::new();
    let mut source = PcapFile::open(input)?;
    while let Some(batch) = source.next_batch()? {
        for frame in batch.frames() {
            let Ok(packet) = decoder.decode(&frame) else { continue };
            let ends = ends(
                (packet.addresses.src_ip(), packet.src_port),
                (packet.addresses.dst_ip(), packet.dst_port),
            );
            let Some(protocol) = protocols.get(&ends) else { continue };
            if !writers.contains_key(protocol) {
                let path = dir.join(format!("only {protocol}.pcap"));
                let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
                let writer = Writer::new(BufWriter::new(file), LinkType::Ethernet, Resolution::Nanoseconds)?;
                writers.insert(*protocol, (path, writer));
            }
            if let Some((_, writer)) = writers.get_mut(protocol) {
                writer.write(frame.ts_ns, frame.wire_len, frame.data)?;
            }
        }
    }
    let mut files = Vec::new();
    for (protocol, (path, writer)) in writers {
        writer.finish()?;
        files.push((protocol.to_owned(), path));
    }
    Ok(files)
}

fn protocols(input: &Path) -> anyhow::Result<HashMap<Ends, &'static str>> {
    let (mut worker, mut records) = (Worker::new(WorkerConfig::default()), Records::default());
    let mut source = PcapFile::open(input)?;
    while let Some(batch) = source.next_batch()? {
        worker.batch(batch, &mut records);
    }
    worker.finish(&mut records);
    let spoken = records.flows.iter().filter_map(|flow| {
        let ends = ends((flow.client.ip, flow.client.port), (flow.server.ip, flow.server.port));
        Some((ends, flow.l7_protocol?.as_str()))
    });
    Ok(spoken.collect())
}

fn ends(a: (IpAddr, u16), b: (IpAddr, u16)) -> Ends {
    if a < b { [a, b] } else { [b, a] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::fixture;

    #[test]
    fn each_file_speaks_one_protocol() {
        let dir = tempfile::tempdir().unwrap();
        let files = by_protocol(&fixture(), dir.path()).unwrap();
        assert!(files.len() >= 4, "{files:?}");
        for (protocol, file) in files {
            assert!(protocols(&file).unwrap().values().all(|spoken| *spoken == protocol), "{protocol}");
        }
    }
}
