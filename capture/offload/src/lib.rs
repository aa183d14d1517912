//! What a NIC can do for a mirror, set up through ethtool netlink and restored afterwards.
