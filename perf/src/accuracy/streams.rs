//! Streams of a capture file, put together without any of wirespan's own code, so that the two can be compared.

use anyhow::{Context, bail};
use std::collections::HashMap;
use std::path::Path;

/// Address and port of sender and receiver.
type Way = ([u8; 4], u16, [u8; 4], u16);
/// Further from the first byte of a stream than any that is made here.
const STREAM_BYTES_MAX: u32 = 1 << 26;

/// Where an exchange is on its two streams: sequence numbers of the first bytes of request and response.
pub type Place = (u32, u32);

/// One direction of a connection.
#[derive(Default)]
struct Stream {
    /// Sequence number of its first byte, from the SYN.
    first: Option<u32>,
    segments: Vec<(u32, Vec<u8>)>,
}

/// The exchanges of a capture file in which Redis and HTTP services are asked, by the ids that `id` finds in requests.
pub fn exchanges(file: &Path, id: impl Fn(&str) -> Option<String>) -> anyhow::Result<HashMap<String, Place>> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut streams: HashMap<Way, Stream> = HashMap::new();
    let mut rest = bytes.get(24..).context("the capture file has no header")?;
    if bytes.get(..4) != Some(&[0xd4, 0xc3, 0xb2, 0xa1]) {
        bail!("the capture file is of an unknown kind");
    }
    while let Some((record, behind)) = rest.split_at_checked(16) {
        let length = u32::from_le_bytes(record[8..12].try_into()?) as usize;
        // The last frame may be on its way into the file.
        let Some((frame, behind)) = behind.split_at_checked(length) else { break };
        take_frame(frame, &mut streams);
        rest = behind;
    }
    let mut found = HashMap::new();
    for (way, requests) in &streams {
        let back = (way.2, way.3, way.0, way.1);
        let (Some(requests), Some(answers)) = (requests.bytes(), streams.get(&back).and_then(Stream::bytes))
        else {
            continue;
        };
        let asked = heads(&requests.1, &[b"GET /", b"*2\r\n$3\r\nGET\r\n"]);
        let answered = heads(&answers.1, &[b"HTTP/1.1 200", b"$-1\r\n"]);
        for (from, to) in asked.into_iter().zip(answered) {
            let end = (from + 200).min(requests.1.len());
            if let Some(id) = id(&String::from_utf8_lossy(&requests.1[from..end])) {
                let place = |stream: &(u32, Vec<u8>), offset: usize| stream.0.wrapping_add(offset as u32);
                found.insert(id, (place(&requests, from), place(&answers, to)));
            }
        }
    }
    Ok(found)
}

/// Where messages begin that begin like this.
fn heads(stream: &[u8], begins: &[&[u8]]) -> Vec<usize> {
    let mut heads = Vec::new();
    for (at, _) in stream.iter().enumerate() {
        if begins.iter().any(|begin| stream[at..].starts_with(begin)) {
            heads.push(at);
        }
    }
    heads
}

/// Ethernet, IPv4, TCP; or in VXLAN.
fn take_frame(frame: &[u8], streams: &mut HashMap<Way, Stream>) -> Option<()> {
    let ip = frame.get(14..).filter(|_| frame[12..14] == [8, 0])?;
    let header = usize::from(ip.first()? & 15) * 4;
    let total = usize::from(u16::from_be_bytes(ip.get(2..4)?.try_into().ok()?));
    let l4 = ip.get(header..total.min(ip.len()))?;
    let port = |at: usize| Some(u16::from_be_bytes(l4.get(at..at + 2)?.try_into().ok()?));
    match ip.get(9)? {
        17 if port(2)? == 4789 => take_frame(l4.get(16..)?, streams),
        6 => {
            let address = |at: usize| <[u8; 4]>::try_from(ip.get(at..at + 4)?).ok();
            let way = (address(12)?, port(0)?, address(16)?, port(2)?);
            let sequence = u32::from_be_bytes(l4.get(4..8)?.try_into().ok()?);
            let payload = l4.get(usize::from(l4.get(12)? >> 4) * 4..)?;
            let stream = streams.entry(way).or_default();
            if l4.get(13)? & 2 != 0 {
                stream.first = Some(sequence.wrapping_add(1));
            } else if !payload.is_empty() {
                stream.segments.push((sequence, payload.to_vec()));
            }
            Some(())
        }
        _ => None,
    }
}

impl Stream {
    /// Its first sequence number and its bytes; what was not captured is 0.
    fn bytes(&self) -> Option<(u32, Vec<u8>)> {
        let first = self.first?;
        let mut bytes = Vec::new();
        for (sequence, payload) in &self.segments {
            let at = sequence.wrapping_sub(first);
            if at < STREAM_BYTES_MAX {
                let end = at as usize + payload.len();
                bytes.resize(end.max(bytes.len()), 0);
                bytes[at as usize..end].copy_from_slice(payload);
            }
        }
        Some((first, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame from one port of a host to one of another, in VXLAN or not.
    fn frame(
        from: (u8, u16),
        to: (u8, u16),
        flags: u8,
        sequence: u32,
        payload: &[u8],
        vxlan: bool,
    ) -> Vec<u8> {
        let ip = |protocol: u8, l4: &[u8]| {
            let mut ip = vec![0x45, 0];
            ip.extend((20 + l4.len() as u16).to_be_bytes());
            ip.extend([0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, from.0, 10, 0, 0, to.0]);
            [&[0; 12][..], &[8, 0], &ip, l4].concat()
        };
        let ports = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
        let tcp = [&ports[..], &sequence.to_be_bytes(), &[0; 4], &[0x50, flags, 0, 0, 0, 0, 0, 0], payload]
            .concat();
        let inner = ip(6, &tcp);
        if vxlan { ip(17, &[&[0, 9, 0x12, 0xb5, 0, 0, 0, 0][..], &[0; 8], &inner].concat()) } else { inner }
    }

    #[test]
    fn exchanges_are_where_their_bytes_are() {
        const SYN: u8 = 2;
        let (client, server) = ((1, 40_000), (2, 80));
        for vxlan in [false, true] {
            // The second request is early, is sent twice, and begins within a segment.
            let frames = [
                frame(client, server, SYN, 99, b"", vxlan),
                frame(server, client, SYN, u32::MAX, b"", vxlan),
                frame(client, server, 16, 110, b"\r\nGET /b HTTP/1.1\r\n\r\n", vxlan),
                frame(client, server, 16, 100, b"GET /a HT\r", vxlan),
                frame(client, server, 16, 110, b"\r\nGET /b HTTP/1.1\r\n\r\n", vxlan),
                frame(server, client, 16, 0, b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", vxlan),
            ];
            let mut bytes = vec![0; 24];
            bytes[..4].copy_from_slice(&[0xd4, 0xc3, 0xb2, 0xa1]);
            for frame in &frames {
                bytes.extend([0; 8]);
                bytes.extend((frame.len() as u32).to_le_bytes());
                bytes.extend((frame.len() as u32).to_le_bytes());
                bytes.extend(frame);
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), bytes).unwrap();
            let id = |text: &str| text.split(' ').nth(1).map(str::to_owned);
            let found = exchanges(file.path(), id).unwrap();
            assert_eq!(found.len(), 2);
            assert_eq!((found["/a"], found["/b"]), ((100, 0), (112, 19)));
        }
    }
}
