//! Packets from DPDK ports.
