//! Values in the binary protocol: bound parameters of COM_STMT_EXECUTE and query attributes of COM_QUERY.
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_stmt_execute.html>

use super::wire::Reader;
use crate::text::text;
use std::fmt::Write;
use wirespan_records::Text;

/// Values that are read of one command.
const MAX_VALUES: usize = 64;

/// Counts that are tried when nobody told how many parameters a statement has.
const MAX_GUESS: usize = 32;

/// What is known of values before they are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout<'a> {
    pub count: usize,
    /// Types come with names.
    pub named: bool,
    /// Types of the last time, for when they are not sent again.
    pub types: &'a [u16],
    /// Bit n: value n was sent before, as long data.
    pub long_data: u64,
    /// Show `?` for each value.
    pub obfuscate: bool,
}

/// The values of one command.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// As `LongLong(1) , text`.
    pub text: String,
    /// Type (low byte) and flags (high byte) of each value.
    pub types: Vec<u16>,
    /// Names that are not empty, with their values.
    pub named: Vec<(Text, String)>,
    /// All values were there.
    pub complete: bool,
}

impl Values {
    /// Reads values as far as the bytes go; `None` when not even their types are there.
    pub(super) fn read(r: &mut Reader<'_>, layout: &Layout<'_>) -> Option<Self> {
        let nulls = r.take(layout.count.div_ceil(8))?;
        let mut values = Self { types: layout.types.to_vec(), ..Self::default() };
        let mut names = Vec::new();
        if r.u8()? == 1 {
            values.types.clear();
            for index in 0..layout.count {
                let kind = r.u16()?;
                let name = if layout.named { r.lenenc_str()? } else { &[] };
                if !is_type(kind) {
                    return None;
                }
                if index < MAX_VALUES {
                    values.types.push(kind);
                    names.push(name);
                }
            }
        }
        values.complete = layout.count <= values.types.len();
        for index in 0..layout.count.min(values.types.len()) {
            let null = nulls[index / 8] >> (index % 8) & 1 == 1;
            let long_data = index < 64 && layout.long_data >> index & 1 == 1;
            let value = match values.types[index] {
                _ if null => Some("NULL".to_owned()),
                _ if long_data => Some("long data".to_owned()),
                kind => value(r, kind),
            };
            let Some(value) = value else {
                values.complete = false;
                break;
            };
            if index > 0 {
                values.text.push_str(" , ");
            }
            values.text.push_str(if layout.obfuscate { "?" } else { &value });
            if let Some(name) = names.get(index).filter(|name| !name.is_empty()) {
                values.named.push((text(name, 64), value));
            }
        }
        Some(values)
    }

    /// Reads values whose count is not known: the count at which `body` is used up to its last byte.
    pub(super) fn guess(body: &[u8], obfuscate: bool) -> Option<Self> {
        (1..=MAX_GUESS).find_map(|count| {
            let mut r = Reader(body);
            let layout = Layout { count, named: false, types: &[], long_data: 0, obfuscate };
            Self::read(&mut r, &layout).filter(|values| values.complete && r.0.is_empty())
        })
    }
}

fn is_type(kind: u16) -> bool {
    matches!(kind as u8, 0..=0x14 | 0xf2..=0xff) && matches!(kind >> 8, 0 | 0x80)
}

/// One value of this type.
fn value(r: &mut Reader<'_>, kind: u16) -> Option<String> {
    let unsigned = kind >> 8 != 0;
    let integer = |name: &str, raw: u64, bytes: u32| {
        if unsigned {
            format!("{name}({raw})")
        } else {
            let shift = 64 - 8 * bytes;
            format!("{name}({})", (raw << shift) as i64 >> shift)
        }
    };
    Some(match kind as u8 {
        0x01 => integer("Tiny", r.uint(1)?, 1),
        0x02 => integer("Short", r.uint(2)?, 2),
        0x03 => integer("Long", r.uint(4)?, 4),
        0x04 => format!("Float({})", f32::from_bits(r.u32()?)),
        0x05 => format!("Double({})", f64::from_bits(r.uint(8)?)),
        0x06 => "NULL".to_owned(),
        0x07 | 0x0a | 0x0c | 0x0e => date(r)?,
        0x08 => integer("LongLong", r.uint(8)?, 8),
        0x09 => integer("Int24", r.uint(4)?, 4),
        0x0b => time(r)?,
        0x0d => integer("Year", r.uint(2)?, 2),
        // All others are sent as strings. One that is cut off shows what is there.
        _ => text(r.lenenc_prefix()?, 4096).into(),
    })
}

fn date(r: &mut Reader<'_>) -> Option<String> {
    let length = r.u8()?;
    let mut r = Reader(r.take(usize::from(length))?);
    let mut out =
        format!("{:04}-{:02}-{:02}", r.u16().unwrap_or(0), r.u8().unwrap_or(0), r.u8().unwrap_or(0));
    if let (Some(hour), Some(minute), Some(second)) = (r.u8(), r.u8(), r.u8()) {
        let _ = write!(out, " {hour:02}:{minute:02}:{second:02}");
    }
    if let Some(micros) = r.u32() {
        let _ = write!(out, ".{micros:06}");
    }
    Some(out)
}

fn time(r: &mut Reader<'_>) -> Option<String> {
    let length = r.u8()?;
    let mut r = Reader(r.take(usize::from(length))?);
    let sign = if r.u8() == Some(1) { "-" } else { "" };
    let hours = u64::from(r.u32().unwrap_or(0)) * 24 + u64::from(r.u8().unwrap_or(0));
    let mut out = format!("{sign}{hours:02}:{:02}:{:02}", r.u8().unwrap_or(0), r.u8().unwrap_or(0));
    if let Some(micros) = r.u32() {
        let _ = write!(out, ".{micros:06}");
    }
    Some(out)
}
