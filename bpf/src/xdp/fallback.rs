//! What an interface or a kernel does not have for the program.

use std::fmt;

/// What was asked for and could not be had, and what is done instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The NIC's times and hashes of frames.
    NoHints {
        /// On which interface.
        interface: String,
        /// What the kernel or the driver said.
        reason: String,
    },
    /// The program in the driver.
    Generic {
        /// On which interface.
        interface: String,
        /// What the driver said.
        reason: String,
    },
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHints { interface, reason } => write!(
                f,
                "{interface} gives no hints of the NIC ({reason}); times are the kernel's and hashes are computed"
            ),
            Self::Generic { interface, reason } => {
                write!(f, "the driver of {interface} takes no XDP program ({reason})")
            }
        }
    }
}
