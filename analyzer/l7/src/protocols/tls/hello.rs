//! ClientHello and ServerHello (RFC 8446 section 4.1, RFC 5246 section 7.4.1, SSLv2 form: RFC 5246 appendix E.2).

use super::reader::Reader;

const SERVER_NAME: u16 = 0;
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// The random of a ServerHello that is a HelloRetryRequest (RFC 8446 section 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// What a client offers.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ClientHello<'a> {
    /// The version field of the hello itself.
    pub legacy_version: u16,
    pub ciphers: Vec<u16>,
    /// Numbers of the extensions, in their order.
    pub extensions: Vec<u16>,
    pub server_name: Option<&'a [u8]>,
    pub alpn: Vec<&'a [u8]>,
    pub versions: Vec<u16>,
    pub signature_algorithms: Vec<u16>,
    /// Bytes are missing at its end.
    pub cut: bool,
}

impl<'a> ClientHello<'a> {
    /// From the body of the handshake message.
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let mut hello = Self { legacy_version: reader.u16()?, ..Self::default() };
        reader.take(32)?;
        reader.vector8();
        hello.ciphers = reader.vector16().numbers();
        reader.vector8();
        let mut extensions = reader.vector16();
        while let Some(number) = extensions.u16() {
            let mut data = extensions.vector16();
            hello.extensions.push(number);
            match number {
                SERVER_NAME => hello.server_name = server_name(&mut data),
                ALPN => {
                    let mut names = data.vector16();
                    while !names.is_empty() {
                        hello.alpn.push(names.vector8().rest());
                    }
                }
                SIGNATURE_ALGORITHMS => hello.signature_algorithms = data.vector16().numbers(),
                SUPPORTED_VERSIONS => hello.versions = data.vector8().numbers(),
                _ => {}
            }
            extensions.cut |= data.cut;
        }
        hello.cut = reader.cut || extensions.cut;
        Some(hello)
    }

    /// From an SSLv2 record that offers SSLv3 or TLS; gives its length too. `None` when it is not one.
    pub(super) fn parse_v2(data: &[u8]) -> Option<(Self, usize)> {
        let mut reader = Reader::new(data);
        let len = reader.u16()?;
        let kind = reader.take(1)?;
        let version = reader.u16()?;
        let (ciphers, session, challenge) = (reader.u16()?, reader.u16()?, reader.u16()?);
        let body = usize::from(len & 0x7fff);
        let sane = len & 0x8000 != 0
            && kind == [1]
            && (version == 0x0002 || (0x0300..=0x0303).contains(&version))
            && ciphers > 0
            && ciphers % 3 == 0
            && matches!(session, 0 | 16)
            && (16..=32).contains(&challenge)
            && body == 9 + usize::from(ciphers) + usize::from(session) + usize::from(challenge);
        if !sane {
            return None;
        }
        let list = reader.take(usize::from(ciphers))?;
        let ciphers = list.chunks_exact(3).filter(|c| c[0] == 0).map(|c| u16::from_be_bytes([c[1], c[2]]));
        Some((Self { legacy_version: version, ciphers: ciphers.collect(), ..Self::default() }, body + 2))
    }

    /// The newest version that is offered.
    pub(super) fn version(&self) -> u16 {
        self.versions
            .iter()
            .copied()
            .filter(|&version| !is_grease(version))
            .max()
            .unwrap_or(self.legacy_version)
    }
}

fn server_name<'a>(data: &mut Reader<'a>) -> Option<&'a [u8]> {
    let mut names = data.vector16();
    while let Some(kind) = names.take(1) {
        let name = names.vector16().rest();
        if kind == [0] && !name.is_empty() {
            return Some(name);
        }
    }
    None
}

/// What the server chose.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ServerHello<'a> {
    pub version: u16,
    pub cipher: u16,
    pub alpn: Option<&'a [u8]>,
    /// Not an answer yet: the client is to say hello once more, with another key share.
    pub retry: bool,
}

impl<'a> ServerHello<'a> {
    /// From the body of the handshake message.
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let version = reader.u16()?;
        let retry = reader.take(32)? == RETRY;
        reader.vector8();
        let mut hello = Self { version, cipher: reader.u16()?, alpn: None, retry };
        reader.take(1);
        let mut extensions = reader.vector16();
        while let Some(number) = extensions.u16() {
            let mut data = extensions.vector16();
            match number {
                ALPN => hello.alpn = Some(data.vector16().vector8().rest()),
                SUPPORTED_VERSIONS => hello.version = data.u16().unwrap_or(version),
                _ => {}
            }
        }
        Some(hello)
    }
}

/// Values that clients send so that servers stay tolerant (RFC 8701).
pub(super) fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}
