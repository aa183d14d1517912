/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the NIC knows of a frame, and the stamp that carries it in front of the frame. */
#pragma once

#include "packet.h"

/* The same as Stamp in src/xdp/stamp.rs. */
#define STAMP_MAGIC 0x77737032 /* wsp2 */
#define STAMP_FLOW_HASH 1
#define STAMP_RX_TIME 2
#define STAMP_RX_HASH 4
#define STAMP_VLAN 8
#define STAMP_CUT 16
struct stamp {
	__u32 magic;
	__u32 flow_hash;
	__u64 boot_ns; /* CLOCK_BOOTTIME */
	__u64 rx_ns;
	/* The length on the wire of a frame that was cut. */
	__u32 rx_hash;
	__u16 vlan_tci;
	__u16 flags;
};

/*
 * The XDP metadata kfuncs. The loader turns these calls of helpers that do not exist into calls of the kernel's
 * functions, where it has them; else the verifier finds that they cannot be reached. The numbers are in src/object.rs.
 */
#define KFUNC(name, number, ...) static long (*const name)(__VA_ARGS__) = (void *)number
KFUNC(bpf_xdp_metadata_rx_timestamp, 0x57530001, const struct xdp_md *ctx, __u64 *timestamp);
KFUNC(bpf_xdp_metadata_rx_hash, 0x57530002, const struct xdp_md *ctx, __u32 *hash, __u32 *type);
KFUNC(bpf_xdp_metadata_rx_vlan_tag, 0x57530003, const struct xdp_md *ctx, __be16 *protocol, __u16 *tci);

/* Fills in the tag that the NIC took off; a kfunc that is not in `kfuncs` (bits of STAMP_...) is not called. */
static __always_inline void nic_vlan(struct xdp_md *ctx, __u32 kfuncs, struct stamp *stamp)
{
	if (kfuncs & STAMP_VLAN) {
		__be16 protocol;
		__u16 tci;
		if (!bpf_xdp_metadata_rx_vlan_tag(ctx, &protocol, &tci)) {
			stamp->vlan_tci = tci;
			stamp->flags |= STAMP_VLAN;
		}
	}
}

/* Fills in what else the driver tells. */
static __always_inline void nic_hints(struct xdp_md *ctx, __u32 kfuncs, struct stamp *stamp)
{
	if (kfuncs & STAMP_RX_TIME) {
		__u64 rx_ns;
		if (!bpf_xdp_metadata_rx_timestamp(ctx, &rx_ns) && rx_ns) {
			stamp->rx_ns = rx_ns;
			stamp->flags |= STAMP_RX_TIME;
		}
	}
	if (kfuncs & STAMP_RX_HASH) {
		__u32 hash, type;
		if (!bpf_xdp_metadata_rx_hash(ctx, &hash, &type) && hash) {
			stamp->rx_hash = hash;
			stamp->flags |= STAMP_RX_HASH;
		}
	}
}

/* Puts the stamp in front of the frame; false where the driver has no room for metadata. */
static __always_inline bool write_stamp(struct xdp_md *ctx, const struct stamp *stamp)
{
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*stamp)))
		return false;
	struct stamp *place = (void *)(long)ctx->data_meta;
	if ((void *)(place + 1) > (void *)(long)ctx->data)
		return false;
	*place = *stamp;
	return true;
}
