//! ClickHouse's Native format, column by column: rows are pushed into plain byte vectors and leave as one block.
//!
//! A block is the numbers of columns and rows (LEB128), then for each column its name, its type and its values. Source: the
//! format's description in ClickHouse's documentation, revision 0 (no custom serialisations).

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::net::IpAddr;

/// A column that takes values one by one.
pub(super) trait Column: Default {
    /// What is pushed.
    type Value<'a>;

    fn push(&mut self, value: Self::Value<'_>);

    /// Bytes held.
    fn size(&self) -> usize;

    /// ClickHouse's name of the type that is sent; the table's own type may differ as far as ClickHouse converts it.
    fn type_name() -> String;

    /// Writes the values and forgets them.
    fn drain(&mut self, out: &mut Vec<u8>);
}

/// A value of fixed width.
pub(super) trait Fixed: Copy + Default {
    const TYPE: &'static str;

    fn write(self, out: &mut Vec<u8>);
}

macro_rules! fixed {
    ($($rust:ty = $name:literal,)*) => {
        $(impl Fixed for $rust {
            const TYPE: &'static str = $name;

            #[inline]
            fn write(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        })*
    };
}

fixed! { u8 = "UInt8", u16 = "UInt16", u32 = "UInt32", u64 = "UInt64", i8 = "Int8", i32 = "Int32", f32 = "Float32", f64 = "Float64", }

macro_rules! wrapped {
    ($($(#[doc = $doc:literal])* $wrapper:ident($inner:ty) = $name:literal,)*) => {
        $($(#[doc = $doc])*
        #[derive(Clone, Copy, Default)]
        pub(super) struct $wrapper(pub(super) $inner);

        impl Fixed for $wrapper {
            const TYPE: &'static str = $name;

            #[inline]
            fn write(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.0.to_le_bytes());
            }
        })*
    };
}

wrapped! {
    /// Days since the epoch.
    Day(u16) = "Date",
    /// Seconds since the epoch.
    Seconds(u32) = "DateTime('UTC')",
    /// Milliseconds since the epoch.
    Millis(i64) = "DateTime64(3, 'UTC')",
    /// Nanoseconds since the epoch.
    Nanos(i64) = "DateTime64(9, 'UTC')",
}

impl From<u64> for Nanos {
    fn from(ns: u64) -> Self {
        Self(i64::try_from(ns).unwrap_or(i64::MAX))
    }
}

impl Fixed for bool {
    const TYPE: &'static str = "Bool";

    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        out.push(u8::from(self));
    }
}

/// An address as IPv6; IPv4 is mapped.
#[derive(Clone, Copy, Default)]
pub(super) struct Ip([u8; 16]);

impl From<IpAddr> for Ip {
    fn from(ip: IpAddr) -> Self {
        Self(match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        })
    }
}

impl Fixed for Ip {
    const TYPE: &'static str = "IPv6";

    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

/// Values of fixed width, one after another.
pub(super) struct Plain<T> {
    bytes: Vec<u8>,
    kind: std::marker::PhantomData<T>,
}

impl<T> Default for Plain<T> {
    fn default() -> Self {
        Self { bytes: Vec::new(), kind: std::marker::PhantomData }
    }
}

impl<T: Fixed> Column for Plain<T> {
    type Value<'a> = T;

    #[inline]
    fn push(&mut self, value: T) {
        value.write(&mut self.bytes);
    }

    fn size(&self) -> usize {
        self.bytes.len()
    }

    fn type_name() -> String {
        T::TYPE.into()
    }

    fn drain(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.bytes);
    }
}

/// Values that may be absent: a byte each that says so, then the values.
pub(super) struct Nullable<T> {
    absent: Vec<u8>,
    values: Plain<T>,
}

impl<T> Default for Nullable<T> {
    fn default() -> Self {
        Self { absent: Vec::new(), values: Plain::default() }
    }
}

impl<T: Fixed> Column for Nullable<T> {
    type Value<'a> = Option<T>;

    #[inline]
    fn push(&mut self, value: Option<T>) {
        self.absent.push(u8::from(value.is_none()));
        self.values.push(value.unwrap_or_default());
    }

    fn size(&self) -> usize {
        self.absent.len() + self.values.size()
    }

    fn type_name() -> String {
        format!("Nullable({})", T::TYPE)
    }

    fn drain(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.absent);
        self.values.drain(out);
    }
}

/// Strings: a length (LEB128) before each.
#[derive(Default)]
pub(super) struct Text(Vec<u8>);

impl Column for Text {
    type Value<'a> = &'a str;

    #[inline]
    fn push(&mut self, value: &str) {
        write_text(&mut self.0, value);
    }

    fn size(&self) -> usize {
        self.0.len()
    }

    fn type_name() -> String {
        "String".into()
    }

    fn drain(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.0);
    }
}

/// Strings that repeat: each distinct one once, and an index per row.
#[derive(Default)]
pub(super) struct Dictionary {
    keys: Vec<u8>,
    index: HashMap<Box<str>, u32, FixedState>,
    rows: Vec<u32>,
    last: (Box<str>, u32),
}

impl Dictionary {
    /// LowCardinality's serialisation version, before the values of the whole column.
    const VERSION: u64 = 1;
    /// The block brings its own keys, and indexes are UInt32.
    const FLAGS: u64 = (1 << 9) | 2;

    fn key(&mut self, value: &str) -> u32 {
        if *self.last.0 == *value && !self.index.is_empty() {
            return self.last.1;
        }
        let next = self.index.len() as u32;
        let key = match self.index.get(value) {
            Some(&key) => key,
            None => {
                write_text(&mut self.keys, value);
                self.index.insert(value.into(), next);
                next
            }
        };
        self.last = (value.into(), key);
        key
    }

    fn drain_body(&mut self, out: &mut Vec<u8>) {
        if self.rows.is_empty() {
            return;
        }
        out.extend_from_slice(&Self::FLAGS.to_le_bytes());
        out.extend_from_slice(&(self.index.len() as u64).to_le_bytes());
        out.append(&mut self.keys);
        out.extend_from_slice(&(self.rows.len() as u64).to_le_bytes());
        for index in self.rows.drain(..) {
            out.extend_from_slice(&index.to_le_bytes());
        }
        self.index.clear();
        self.last = Default::default();
    }
}

impl Column for Dictionary {
    type Value<'a> = &'a str;

    #[inline]
    fn push(&mut self, value: &str) {
        let key = self.key(value);
        self.rows.push(key);
    }

    fn size(&self) -> usize {
        self.keys.len() + self.rows.len() * 4
    }

    fn type_name() -> String {
        "LowCardinality(String)".into()
    }

    fn drain(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&Self::VERSION.to_le_bytes());
        self.drain_body(out);
    }
}

/// Names and texts per row: the end of each row's pairs, then all names, then all texts.
#[derive(Default)]
pub(super) struct Pairs {
    ends: Vec<u64>,
    names: Dictionary,
    texts: Text,
}

impl Column for Pairs {
    type Value<'a> = &'a [(&'static str, wirespan_records::Text)];

    fn push(&mut self, pairs: Self::Value<'_>) {
        for (name, text) in pairs {
            self.names.push(name);
            self.texts.push(text);
        }
        self.ends.push(self.names.rows.len() as u64);
    }

    fn size(&self) -> usize {
        self.ends.len() * 8 + self.names.size() + self.texts.size()
    }

    fn type_name() -> String {
        "Map(LowCardinality(String), String)".into()
    }

    fn drain(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&Dictionary::VERSION.to_le_bytes());
        for end in self.ends.drain(..) {
            out.extend_from_slice(&end.to_le_bytes());
        }
        self.names.drain_body(out);
        self.texts.drain(out);
    }
}

pub(super) fn write_length(out: &mut Vec<u8>, mut n: usize) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    write_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Rows of one table, as columns.
pub(super) trait Block: Default + Send {
    /// The row as it comes.
    type Row<'a>;
    const TABLE: &'static str;

    fn push(&mut self, row: Self::Row<'_>, meta: &RowMeta);

    fn size(&self) -> usize;

    /// Writes everything as one block and forgets it.
    fn drain(&mut self, rows: usize) -> Vec<u8>;
}

/// What the writer adds to each row.
pub(super) struct RowMeta {
    pub(super) day: Day,
    pub(super) id: u64,
    pub(super) agent_id: u32,
}

/// Defines the columns of a table and where their values come from.
macro_rules! block {
    ($name:ident: $table:literal, |$row:ident: $type:ty, $meta:ident| { $($column:ident: $kind:ty = $value:expr,)* }) => {
        #[derive(Default)]
        pub(in crate::write) struct $name { $($column: $kind,)* }

        impl Block for $name {
            type Row<'a> = $type;
            const TABLE: &'static str = $table;

            #[inline]
            fn push(&mut self, $row: Self::Row<'_>, $meta: &RowMeta) {
                $(self.$column.push($value);)*
            }

            fn size(&self) -> usize {
                [$(self.$column.size(),)*].into_iter().sum()
            }

            fn drain(&mut self, rows: usize) -> Vec<u8> {
                let mut out = Vec::with_capacity(self.size() + 4096);
                write_length(&mut out, [$(stringify!($column),)*].len());
                write_length(&mut out, rows);
                $(
                    write_text(&mut out, stringify!($column));
                    write_text(&mut out, &<$kind as Column>::type_name());
                    self.$column.drain(&mut out);
                )*
                out
            }
        }
    };
}
pub(super) use block;
