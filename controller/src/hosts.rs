//! hosts(5): one address per line, then its names; `#` begins a comment.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// A hosts file larger than this is refused: ad-block lists of this size name nothing that is of interest here.
const MAX_FILE_BYTES: u64 = 32 << 20;

/// Longest name of RFC 1035, section 3.1.
const MAX_NAME_BYTES: usize = 255;

/// A hosts file that could not be used.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// The file is not there or may not be read.
    #[error("cannot read the hosts file {path}: {source}; check the path and its permissions", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is too large to be a list of names of hosts.
    #[error("the hosts file {path} is larger than {} MiB; give a smaller one", MAX_FILE_BYTES >> 20, path = path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
}

/// Names of addresses. An IPv4 address and its IPv4-mapped IPv6 form are the same address.
#[derive(Clone, Debug, Default)]
pub struct Names {
    by_ip: HashMap<IpAddr, Box<str>, RandomState>,
    skipped_lines: usize,
}

impl Names {
    /// The names of the machine's own hosts file, where it has one, and of the given files; the last file wins.
    pub fn load(files: &[PathBuf]) -> Result<Self, HostsError> {
        let mut names = Self::default();
        let system = Path::new("/etc/hosts");
        if system.exists() {
            names.add_file(system)?;
        }
        for file in files {
            names.add_file(file)?;
        }
        Ok(names)
    }

    /// Adds the names of one hosts(5) file; they replace those of the same addresses.
    pub fn add_file(&mut self, path: &Path) -> Result<(), HostsError> {
        let read_error = |source| HostsError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read_error)?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(read_error)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(HostsError::TooLarge { path: path.to_owned() });
        }
        self.add_text(&String::from_utf8_lossy(&bytes));
        Ok(())
    }

    /// Adds the names of a text in the format of hosts(5). Of several names on a line the first, canonical one counts, of
    /// several lines with the same address in one text the first, as in the resolver.
    pub fn add_text(&mut self, text: &str) {
        let mut seen: HashMap<IpAddr, Box<str>, RandomState> = HashMap::default();
        for line in text.lines() {
            match parse_line(line) {
                Line::Empty => {}
                Line::Entry(ip, name) => {
                    seen.entry(ip).or_insert_with(|| name.into());
                }
                Line::Bad => self.skipped_lines += 1,
            }
        }
        self.by_ip.extend(seen);
    }

    /// The name of an address.
    pub fn lookup(&self, ip: IpAddr) -> Option<&str> {
        self.by_ip.get(&ip.to_canonical()).map(AsRef::as_ref)
    }

    /// Every address with its name, in the order of the addresses.
    pub fn sorted(&self) -> Vec<(IpAddr, &str)> {
        let mut all: Vec<_> = self.by_ip.iter().map(|(ip, name)| (*ip, name.as_ref())).collect();
        all.sort_unstable();
        all
    }

    /// How many addresses have a name.
    pub fn len(&self) -> usize {
        self.by_ip.len()
    }

    /// No address has a name.
    pub fn is_empty(&self) -> bool {
        self.by_ip.is_empty()
    }

    /// Lines that are neither empty nor an address with a name, in all files together.
    pub fn skipped_lines(&self) -> usize {
        self.skipped_lines
    }
}

enum Line<'a> {
    Empty,
    Entry(IpAddr, &'a str),
    Bad,
}

fn parse_line(line: &str) -> Line<'_> {
    let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
    let Some(address) = words.next() else { return Line::Empty };
    match (parse_address(address), words.next()) {
        (Some(ip), Some(name)) if is_name(name) => Line::Entry(ip, name),
        _ => Line::Bad,
    }
}

/// An address; the zone of a link-local one (RFC 4007, section 11) means nothing on the wire.
fn parse_address(text: &str) -> Option<IpAddr> {
    if let Some((address, _zone)) = text.split_once('%') {
        return address.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// Letters, digits, `-`, `_` and `.`, as hosts(5) wants it: names are shown and stored as they are.
fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn names(text: &str) -> Names {
        let mut names = Names::default();
        names.add_text(text);
        names
    }

    #[test]
    fn takes_the_first_name_of_a_line_and_the_first_line_of_an_address() {
        let names =
            names("# ours\n10.0.0.1\tweb.example web # the page\n10.0.0.1 other\n\n2001:db8::1 six\n");
        assert_eq!(names.lookup(ip("10.0.0.1")), Some("web.example"));
        assert_eq!(names.lookup(ip("2001:db8::1")), Some("six"));
        assert_eq!(names.lookup(ip("10.0.0.2")), None);
        assert_eq!((names.len(), names.skipped_lines()), (2, 0));
    }

    #[test]
    fn a_later_file_wins() {
        let mut names = names("10.0.0.1 old\n10.0.0.2 kept\n");
        names.add_text("10.0.0.1 new\n");
        assert_eq!(names.sorted(), [(ip("10.0.0.1"), "new"), (ip("10.0.0.2"), "kept")]);
    }

    #[test]
    fn mapped_addresses_and_zones_are_put_aside() {
        let names = names("::ffff:10.0.0.9 mapped\nfe80::1%eth0 gateway\n");
        assert_eq!(names.lookup(ip("10.0.0.9")), Some("mapped"));
        assert_eq!(names.lookup(ip("::ffff:10.0.0.9")), Some("mapped"));
        assert_eq!(names.lookup(ip("fe80::1")), Some("gateway"));
    }

    #[test]
    fn bad_lines_are_counted_and_skipped() {
        let names = names("10.0.0.300 high\n10.0.0.1\nname 10.0.0.1\n10.0.0.2 <script>\n10.0.0.3 good\n");
        assert_eq!((names.len(), names.skipped_lines()), (1, 4));
    }

    #[test]
    fn files_are_read_and_a_missing_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        std::fs::write(&path, b"192.0.2.7 \xffbad\n192.0.2.8 good\n").unwrap();
        let names = Names::load(std::slice::from_ref(&path)).unwrap();
        assert_eq!(names.lookup(ip("192.0.2.8")), Some("good"));
        assert_eq!(names.lookup(ip("192.0.2.7")), None);

        let missing = dir.path().join("nothing");
        let error = Names::default().add_file(&missing).unwrap_err().to_string();
        assert!(error.contains("nothing") && error.contains("check the path"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[ \\t\\n#0-9a-f.:%<é-]{0,200}") {
            let names = names(&text);
            prop_assert!(names.len() + names.skipped_lines() <= text.lines().count());
        }

        #[test]
        fn what_is_written_is_read_back(entries in prop::collection::btree_map(any::<u32>(), "[a-z][a-z0-9.-]{0,20}", 0..50)) {
            let text: String =
                entries.iter().map(|(ip, name)| format!("{} {name}\n", std::net::Ipv4Addr::from(*ip))).collect();
            let names = names(&text);
            prop_assert_eq!(names.len(), entries.len());
            for (ip, name) in &entries {
                prop_assert_eq!(names.lookup(IpAddr::V4((*ip).into())), Some(name.as_str()));
            }
        }
    }
}
