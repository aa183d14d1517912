//! How much payload the kernel copies.

use std::io;

use aya::Pod;
use aya::maps::{Array, MapData, MapError};

use super::object::{Object, Result};
use crate::BpfError;

/// How much of a connection's bytes comes with its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snap {
    /// Bytes of one event, at most 8192.
    pub bytes: u32,
    /// Bytes of one message, that is until bytes go the other way; events behind come without payload, unless they move little.
    pub message_bytes: u32,
}

impl Snap {
    /// 2 KiB of an event, 4 KiB of a message and what else comes in short calls: the heads, and most bodies that have to be read to
    /// their end. Of connections and TLS sessions that are seen to speak HTTP/2, 64 KiB, in several events of 8 KiB or, in TLS, one
    /// of up to 16 KiB for each call: many heads come together, and each has to be read.
    pub const DEFAULT: Self = Self::new(2048, 4096);

    /// So many bytes of an event, and of a message.
    pub const fn new(bytes: u32, message_bytes: u32) -> Self {
        Self { bytes, message_bytes }
    }
}

/// `struct default_policy` of `programs/tracer_maps.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct DefaultPolicy {
    version: u32,
    bytes: u32,
    message_bytes: u32,
    sample_mask: u32,
    coroutines: u32,
    unused: u32,
}

// SAFETY: integers without padding.
unsafe impl Pod for DefaultPolicy {}

/// What is wanted of connections, as the program reads it.
pub(super) struct Policy {
    map: Array<MapData, DefaultPolicy>,
    default: DefaultPolicy,
}

impl Policy {
    /// All connections have `snap`.
    pub fn take(object: &mut Object, snap: Snap) -> Result<Self> {
        let mut policy = Self { map: object.map("default_policy")?, default: DefaultPolicy::default() };
        policy.set_default(snap, 1)?;
        Ok(policy)
    }

    pub fn set_default(&mut self, snap: Snap, one_of: u32) -> Result<()> {
        let (bytes, message_bytes) = (snap.bytes, snap.message_bytes);
        let sample_mask = one_of.max(1).next_power_of_two() - 1;
        self.default = DefaultPolicy { bytes, message_bytes, sample_mask, ..self.default };
        self.changed()
    }

    /// From now on there are processes with coroutines.
    pub fn expect_coroutines(&mut self) -> Result<()> {
        if self.default.coroutines == 0 {
            self.default.coroutines = 1;
            self.changed()?;
        }
        Ok(())
    }

    /// Lets the program look again.
    fn changed(&mut self) -> Result<()> {
        self.default.version = self.default.version.wrapping_add(1);
        self.map.set(0, self.default, 0).map_err(|error| BpfError::map(&error))
    }
}

/// There was nothing to remove.
pub(super) fn is_missing(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.kind() == io::ErrorKind::NotFound)
}
