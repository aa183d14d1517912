//! Mirrored frames: which tap they came from, and whether they came before.
//!
//! Fragments are looked at one by one, before they are put together, so that copies never meet the datagram of the first.
//! What was put together from them is not looked at again.

use crate::dedup::Dedup;
use crate::tap::{Facts, Matcher, Taps};
use std::time::Duration;
use wirespan_records::{DropReason, NO_TAP};

/// What is known of mirrors.
#[derive(Clone, Debug, Default)]
pub struct MirrorConfig {
    /// The taps; none is fine.
    pub taps: Taps,
    /// Names of the interfaces, by the number that their frames carry.
    pub interfaces: Vec<String>,
}

impl MirrorConfig {
    fn deduplicates(&self) -> bool {
        self.taps.dedup.is_some() || self.taps.taps.iter().any(|tap| tap.dedup.is_some())
    }
}

/// Tells taps and duplicates.
#[derive(Debug)]
pub(super) struct Mirror {
    matcher: Matcher,
    /// By the place in the file; one more for frames without a tap.
    settings: Vec<Setting>,
    dedup: Option<Dedup>,
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    tap: u16,
    /// 0: duplicates are kept.
    window_ns: u64,
}

impl Mirror {
    /// `None` when there is nothing to tell.
    pub fn new(config: MirrorConfig) -> Option<Self> {
        let deduplicates = config.deduplicates();
        let MirrorConfig { taps, interfaces } = config;
        if taps.taps.is_empty() && !deduplicates {
            return None;
        }
        let window_ns = |dedup: Option<Duration>| dedup.map_or(0, |window| window.as_nanos() as u64);
        let of_tap = taps.taps.iter().map(|tap| Setting { tap: tap.id, window_ns: window_ns(tap.dedup) });
        let none = Setting { tap: NO_TAP, window_ns: window_ns(taps.dedup) };
        Some(Self {
            settings: of_tap.chain([none]).collect(),
            matcher: Matcher::new(&taps, &interfaces),
            dedup: deduplicates.then(Dedup::new),
        })
    }

    /// Packets that were forgotten before their window was over.
    pub fn forgotten(&self) -> u64 {
        self.dedup.as_ref().map_or(0, Dedup::forgotten)
    }

    /// The tap of a frame whose innermost IP packet is `ip`, or that it is a duplicate.
    #[inline]
    pub fn packet(&mut self, facts: &Facts<'_>, ip: &[u8]) -> Result<u16, DropReason> {
        let place = self.matcher.find(facts);
        self.observe(place, ip, facts)
    }

    /// The same for a fragment: the tunnel inside is not known yet, so the tap is the first that it may be.
    pub fn fragment(&mut self, facts: &Facts<'_>, ip: &[u8]) -> Result<u16, DropReason> {
        let place = match facts.tunnel {
            Some(_) => self.matcher.find(facts),
            None => self.matcher.find_before_tunnel(facts),
        };
        self.observe(place, ip, facts)
    }

    #[inline]
    fn observe(&mut self, place: Option<usize>, ip: &[u8], facts: &Facts<'_>) -> Result<u16, DropReason> {
        let setting = place.and_then(|place| self.settings.get(place)).or(self.settings.last());
        let Some(&Setting { tap, window_ns }) = setting else { return Ok(NO_TAP) };
        if window_ns != 0
            && let Some(dedup) = &mut self.dedup
            && dedup.is_duplicate(tap, ip, facts.frame.ts_ns, window_ns)
        {
            return Err(DropReason::Duplicate);
        }
        Ok(tap)
    }
}
