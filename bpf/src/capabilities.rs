//! What a process may do.

/// The effective capabilities, a bit for each (linux/capability.h), of the process whose `/proc/PID/status` this is; none when that
/// does not say.
pub fn effective_capabilities(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_effective_ones() {
        let status = "Name:\tx\nCapPrm:\t00000000000000ff\nCapEff:\t0000008000003000\n";
        assert_eq!(effective_capabilities(status), 1 << 39 | 1 << 13 | 1 << 12);
        assert_eq!(effective_capabilities("CapEff:\tnone\n"), 0);
        assert_eq!(effective_capabilities(""), 0);
    }
}
