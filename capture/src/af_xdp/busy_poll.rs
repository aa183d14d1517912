//! Busy polling: the worker's own CPU runs the driver's receive path when the worker asks for frames, instead of interrupts
//! running it when they like (Documentation/networking/napi.rst of the kernel). That interrupts stay off as long as the
//! worker asks often enough is a setting of the interface, which is not made here.

use std::io;
use std::os::fd::BorrowedFd;

use crate::sys;

/// How long the kernel may look for frames in one call.
const POLL_US: libc::c_int = 20;
/// Frames that one call may take from the driver.
const BUDGET: libc::c_int = 64;
/// Frames after which the effect is judged.
const JUDGED_FRAMES: u64 = 20_000;
/// With an effect, frames appear while we ask for them, save after a pause of ours. So more than one in so many that appeared
/// at other times were brought by somebody else.
const UNASKED_SHARE: u64 = 20;

/// Makes a socket one that is busy-polled.
pub(super) fn prefer(socket: BorrowedFd<'_>) -> io::Result<()> {
    let options =
        [(libc::SO_PREFER_BUSY_POLL, 1), (libc::SO_BUSY_POLL, POLL_US), (libc::SO_BUSY_POLL_BUDGET, BUDGET)];
    options.iter().try_for_each(|(name, value)| sys::set_option(socket, libc::SOL_SOCKET, *name, value))
}

/// The receive path that the kernel knows this socket's frames to come from; busy polling needs one.
pub(super) fn has_napi(socket: BorrowedFd<'_>) -> bool {
    let id = sys::get_option::<libc::c_int>(socket, libc::SOL_SOCKET, libc::SO_INCOMING_NAPI_ID);
    id.is_ok_and(|id| id != 0)
}

/// Finds out whether frames come because we ask for them.
#[derive(Default)]
pub(super) struct Effect {
    frames: u64,
    unasked: u64,
    last_produced: u32,
}

impl Effect {
    /// Judges anew, from this producer index on.
    pub fn starting_at(produced: u32) -> Self {
        Self { last_produced: produced, ..Self::default() }
    }

    /// Counts frames that came while nobody asked. `produced` is the ring's producer index.
    pub fn before_asking(&mut self, produced: u32) {
        let came = u64::from(produced.wrapping_sub(self.last_produced));
        self.unasked += came;
        self.frames += came;
        self.last_produced = produced;
    }

    /// Counts frames that came while we asked.
    pub fn after_asking(&mut self, produced: u32) {
        self.frames += u64::from(produced.wrapping_sub(self.last_produced));
        self.last_produced = produced;
    }

    /// After enough frames: whether asking brings them.
    pub fn verdict(&self) -> Option<bool> {
        (self.frames >= JUDGED_FRAMES).then_some(self.unasked * UNASKED_SHARE <= self.frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(unasked: u32, asked: u32) -> Option<bool> {
        let mut effect = Effect::starting_at(u32::MAX - 100);
        let mut produced = effect.last_produced;
        for _ in 0..JUDGED_FRAMES / 100 {
            produced = produced.wrapping_add(unasked);
            effect.before_asking(produced);
            produced = produced.wrapping_add(asked);
            effect.after_asking(produced);
        }
        effect.verdict()
    }

    #[test]
    fn frames_that_come_by_themselves_show_that_asking_has_no_effect() {
        assert_eq!(judged(0, 100), Some(true));
        assert_eq!(judged(4, 96), Some(true));
        assert_eq!(judged(10, 90), Some(false));
        assert_eq!(judged(0, 99), None, "too few frames to judge");
    }
}
