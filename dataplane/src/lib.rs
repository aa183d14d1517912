//! (being written)

pub mod packet;
