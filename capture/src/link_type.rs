//! Numbers of the LINKTYPE registry (<https://www.tcpdump.org/linktypes.html>).

use wirespan_frame::LinkType;

/// The link type with this number in a capture file's header.
pub fn from_number(number: u16) -> LinkType {
    match number {
        0 => LinkType::Null,
        1 => LinkType::Ethernet,
        // 12 and 14 are DLT_RAW of Linux and of OpenBSD, which some writers put into files.
        12 | 14 | 101 | 228 | 229 => LinkType::RawIp,
        108 => LinkType::Loop,
        113 => LinkType::LinuxSll,
        276 => LinkType::LinuxSll2,
        other => LinkType::Other(other),
    }
}

/// The number under which a link type is written.
pub fn to_number(link: LinkType) -> u16 {
    match link {
        LinkType::Null => 0,
        LinkType::Ethernet => 1,
        LinkType::RawIp => 101,
        LinkType::Loop => 108,
        LinkType::LinuxSll => 113,
        LinkType::LinuxSll2 => 276,
        LinkType::Other(number) => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_reads_back_as_what_was_written() {
        for number in 0..=u16::MAX {
            let link = from_number(number);
            assert_eq!(from_number(to_number(link)), link);
        }
    }
}
