//! Busy polling: the worker's own CPU runs the driver's receive path when the worker asks for frames, instead of interrupts
//! running it when they like (Documentation/networking/napi.rst of the kernel).

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

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

/// A setting of an interface that is changed while it is captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The file in sysfs.
    pub path: PathBuf,
    /// What it was.
    pub before: String,
    /// What capturing needs.
    pub wanted: String,
}

impl Setting {
    pub(super) fn apply(&self) -> io::Result<()> {
        fs::write(&self.path, &self.wanted)
    }

    /// Sets what was set before. For the rest of a process that was killed: only where the file still says what it had written.
    pub fn restore(&self) -> io::Result<()> {
        match fs::read_to_string(&self.path) {
            Ok(now) if now.trim() == self.wanted => fs::write(&self.path, &self.before),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What busy polling of an interface changes of its settings: interrupts stay off as long as the worker asks often enough.
pub fn settings(interface: &str) -> io::Result<Vec<Setting>> {
    let mut changes = Vec::new();
    for (name, wanted) in [("napi_defer_hard_irqs", "2"), ("gro_flush_timeout", "200000")] {
        let path = PathBuf::from(format!("/sys/class/net/{interface}/{name}"));
        let before = fs::read_to_string(&path)?.trim().to_owned();
        if before != wanted {
            changes.push(Setting { path, before, wanted: wanted.to_owned() });
        }
    }
    Ok(changes)
}

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

    #[test]
    fn a_setting_is_restored_only_if_it_is_still_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gro_flush_timeout");
        let setting = Setting { path: path.clone(), before: "0".into(), wanted: "200000".into() };
        setting.restore().unwrap();
        fs::write(&path, "0\n").unwrap();
        setting.apply().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "200000");
        setting.restore().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "0");
        fs::write(&path, "5\n").unwrap();
        setting.restore().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "5\n");
    }
}
