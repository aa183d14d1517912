// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Hands every frame of an interface to the AF_XDP socket of its queue, with a time stamp in front of it.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define QUEUES_MAX 256

/* Lies right before the frame; the same as Stamp in src/xdp/stamp.rs. */
#define STAMP_MAGIC 0x77737032 /* wsp2 */
struct stamp {
	__u32 magic;
	__u32 flow_hash;
	__u64 boot_ns; /* CLOCK_BOOTTIME */
	__u64 rx_ns;
	__u32 rx_hash;
	__u16 vlan_tci;
	__u16 flags;
};

/* The same as Counters in src/xdp/mod.rs. */
struct counters {
	__u64 delivered;
	__u64 passed;
};

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, QUEUES_MAX);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct counters);
	__uint(max_entries, 1);
} statistics SEC(".maps");

/* A driver that has no room for metadata leaves the frame unstamped. */
static __always_inline void stamp(struct xdp_md *ctx)
{
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(struct stamp)))
		return;
	struct stamp *stamp = (void *)(long)ctx->data_meta;
	if ((void *)(stamp + 1) > (void *)(long)ctx->data)
		return;
	*stamp = (struct stamp){ .magic = STAMP_MAGIC, .boot_ns = bpf_ktime_get_boot_ns() };
}

/* Also frames in parts: jumbo frames (Linux 5.18). */
SEC("xdp.frags")
int wirespan_xdp(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct counters *counters = bpf_map_lookup_elem(&statistics, &zero);
	if (!counters)
		return XDP_PASS;
	/* A queue without a socket stays with the network stack. */
	if (!bpf_map_lookup_elem(&sockets, &(__u32){ ctx->rx_queue_index })) {
		counters->passed++;
		return XDP_PASS;
	}
	stamp(ctx);
	counters->delivered++;
	return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
