//! The connection phase: the server's greeting and the client's answer.
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html>

use super::wire::Reader;
use crate::text::text;
use wirespan_records::Text;

/// Capabilities that matter here.
pub(super) mod capability {
    pub const CONNECT_WITH_DB: u64 = 1 << 3;
    pub const COMPRESS: u64 = 1 << 5;
    pub const PROTOCOL_41: u64 = 1 << 9;
    pub const SSL: u64 = 1 << 11;
    pub const SECURE_CONNECTION: u64 = 1 << 15;
    pub const PLUGIN_AUTH_LENENC: u64 = 1 << 21;
    pub const ZSTD: u64 = 1 << 26;
    pub const QUERY_ATTRIBUTES: u64 = 1 << 27;
}

/// Longest name kept of users and databases.
const MAX_NAME: usize = 256;

/// Protocol::HandshakeV10.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub version: Text,
    pub capabilities: u64,
}

impl Greeting {
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let mut r = Reader(payload);
        if r.u8()? != 10 {
            return None;
        }
        let version = r.nul_str()?;
        let plausible = (1..=128).contains(&version.len())
            && version.iter().all(u8::is_ascii_graphic)
            && version.iter().any(u8::is_ascii_digit);
        // Connection id and the first part of the scramble.
        r.take(4 + 8)?;
        if !plausible || r.u8()? != 0 {
            return None;
        }
        let low = u64::from(r.u16()?);
        // Character set and status; servers before 4.1 end earlier.
        let high = r.take(3).and_then(|_| r.u16()).map_or(0, u64::from);
        Some(Self { version: text(version, MAX_NAME), capabilities: high << 16 | low })
    }
}

/// Protocol::HandshakeResponse41, Protocol::HandshakeResponse320 or the SSL request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub capabilities: u64,
    /// Absent from an SSL request.
    pub user: Option<Text>,
    pub database: Option<Text>,
}

impl Login {
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let mut r = Reader(payload);
        let low = u64::from(r.u16()?);
        if low & capability::PROTOCOL_41 == 0 {
            return Self::read_320(low, r);
        }
        let capabilities = u64::from(r.u16()?) << 16 | low;
        // Largest packet and character set, then zeros; MariaDB has more capabilities in the last four.
        r.take(4 + 1)?;
        if r.take(19)?.iter().any(|&b| b != 0) {
            return None;
        }
        r.take(4)?;
        let mut login = Self { capabilities, user: None, database: None };
        if r.0.is_empty() {
            return (capabilities & capability::SSL != 0).then_some(login);
        }
        login.user = Some(text(r.nul_str()?, MAX_NAME));
        if capabilities & capability::PLUGIN_AUTH_LENENC != 0 {
            r.lenenc_str()?;
        } else if capabilities & capability::SECURE_CONNECTION != 0 {
            let length = r.u8()?;
            r.take(usize::from(length))?;
        } else {
            r.nul_str()?;
        }
        if capabilities & capability::CONNECT_WITH_DB != 0 {
            login.database = r.nul_str().map(|name| text(name, MAX_NAME)).filter(|name| !name.is_empty());
        }
        Some(login)
    }

    /// The login of clients before 4.1.
    fn read_320(capabilities: u64, mut r: Reader<'_>) -> Option<Self> {
        r.take(3)?;
        if r.0.is_empty() {
            return (capabilities & capability::SSL != 0).then_some(Self {
                capabilities,
                user: None,
                database: None,
            });
        }
        let user = r.nul_str()?;
        Some(Self { capabilities, user: Some(text(user, MAX_NAME)), database: None })
    }
}

/// User and database of COM_CHANGE_USER, after the command byte.
pub(super) fn change_user(body: &[u8]) -> Option<(Text, Option<Text>)> {
    let mut r = Reader(body);
    let user = text(r.nul_str()?, MAX_NAME);
    let length = r.u8()?;
    let database = r
        .take(usize::from(length))
        .and_then(|_| r.nul_str())
        .map(|name| text(name, MAX_NAME))
        .filter(|name| !name.is_empty());
    Some((user, database))
}
