// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Hands the frames of an interface to the AF_XDP sockets of its queues, with a stamp in front of each. Before that, as
// far as it is asked for: filters, samples by flow, and counts the frames of shunted flows instead of delivering them.
//
// What it shall do is constant when it is loaded, so that the verifier removes what is not asked for.

#include "packet.h"

typedef struct xdp_md parse_context;

#include "parse.h"
#include "filter.h"
#include "flow_hash.h"
#include "hints.h"
#include "shunt.h"

#define QUEUES_MAX 256

/* The same as Settings in src/xdp/mod.rs. */
struct settings {
	/* Flows whose spread hash is less are kept; 0 keeps all. */
	__u32 sample_below;
	/* Which metadata kfuncs may be called: bits of STAMP_... */
	__u32 kfuncs;
	__u8 flow_hash;
	__u8 filter;
	__u8 shunt;
	/* The kernel knows frames of several buffers. */
	__u8 frags;
};

const volatile struct settings settings;

/* The same as Counters in src/xdp/stats.rs. Whatever comes in goes out once. */
struct counters {
	__u64 received;
	__u64 delivered;
	__u64 passed;
	__u64 filtered[DIMENSIONS];
	__u64 sampled_out;
	__u64 shunted;
	__u64 shunted_bytes;
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

/* Only the first buffer of a frame is looked into. */
static __always_inline const void *load(struct xdp_md *ctx, struct walk *walk, __u32 len)
{
	void *header = (void *)(long)ctx->data + walk->offset;
	return header + len > (void *)(long)ctx->data_end ? NULL : header;
}

/* Spreads the hash anew, so that the flows that are kept have hashes of all sizes. */
static __always_inline bool sampled(__u32 hash)
{
	return hash * 0x9e3779b1 < settings.sample_below;
}

/* The frame's length with all of its buffers. */
static __always_inline __u32 frame_len(struct xdp_md *ctx)
{
	return settings.frags ? bpf_xdp_get_buff_len(ctx) : ctx->data_end - ctx->data;
}

/* The headers with which nearly all frames begin, without a call of `turn`, which takes as long as they do. */
static __always_inline enum next first_headers(struct xdp_md *ctx, struct walk *walk)
{
	struct packet *packet = &walk->packet;
	enum next next = ethernet(ctx, walk);
	if (next == ETHERTYPE && walk->ethertype == ETHERTYPE_VLAN)
		next = vlan_tag(ctx, walk, packet);
	if (next == ETHERTYPE && walk->ethertype == ETHERTYPE_IPV4)
		next = ipv4(ctx, walk, packet);
	if (next == UPPER && (walk->protocol == PROTOCOL_TCP || walk->protocol == PROTOCOL_UDP))
		next = upper(ctx, walk, packet);
	return next;
}

/* Counts a frame that was counted in its flow: who sees the one sees the other too. */
static __always_inline void count_shunted(struct counters *counters, __u32 wire_bytes)
{
	counters->shunted_bytes += wire_bytes;
#ifdef __TARGET_ARCH_x86
	/* Other CPUs see its stores in order; only the compiler must keep it. */
	asm volatile("" ::: "memory");
	counters->shunted++;
#else
	__sync_fetch_and_add(&counters->shunted, 1);
#endif
}

/* What is done with a frame that a socket waits for. */
static __always_inline int capture(struct xdp_md *ctx, struct counters *counters)
{
	struct stamp stamp = { .magic = STAMP_MAGIC };
	nic_vlan(ctx, settings.kfuncs, &stamp);

	__u32 wire_len = 0, headers_len = 0;
	struct walk walk = {};
	const struct packet *packet = &walk.packet;
	if (settings.flow_hash || settings.sample_below || settings.filter || settings.shunt) {
		__u16 id = stamp.vlan_tci & 0x0fff;
		walk.packet.vlan = id ? id | VLAN_PRESENT : 0;
		wire_len = frame_len(ctx);
		walk.captured_end = ctx->data_end - ctx->data;
		walk.end = wire_len;
		parse(ctx, &walk, first_headers(ctx, &walk));
	}
	if (settings.filter) {
		enum dimension rejected = filter(packet);
		if (rejected < DIMENSIONS) {
			counters->filtered[rejected]++;
			return XDP_DROP;
		}
	}
	/* Of what flow a fragment is, only user space knows of all. */
	if (settings.sample_below && packet->found && !packet->fragment && !sampled(flow_hash(packet))) {
		counters->sampled_out++;
		return XDP_DROP;
	}
	if (settings.shunt) {
		/* As user space counts what is delivered: with a tag that the NIC took off. */
		__u32 wire_bytes = wire_len + (stamp.flags & STAMP_VLAN ? VLAN_TAG_LEN : 0);
		enum shunt_mode mode = shunt(packet, wire_bytes);
		if (mode == SHUNT_COUNT) {
			count_shunted(counters, wire_bytes);
			return XDP_DROP;
		}
		if (mode == SHUNT_HEADERS && packet->headers_len < wire_len)
			headers_len = packet->headers_len;
	}
	/* Only now: a frame that is not delivered pays neither for its hash nor for the clock and what else the NIC tells. */
	nic_hints(ctx, settings.kfuncs, &stamp);
	if (headers_len) {
		stamp.rx_hash = wire_len;
		stamp.flags = (stamp.flags & ~STAMP_RX_HASH) | STAMP_CUT;
	}
	stamp.boot_ns = bpf_ktime_get_boot_ns();
	/* Where a fragment's flow goes is told by its ports, which only user space knows of all fragments. */
	if (settings.flow_hash && packet->found && !packet->fragment) {
		stamp.flow_hash = flow_hash(packet);
		stamp.flags |= STAMP_FLOW_HASH;
	}
	/* Without a stamp nobody would know how long the frame was. */
	if (write_stamp(ctx, &stamp) && headers_len)
		bpf_xdp_adjust_tail(ctx, (int)headers_len - (int)wire_len);
	int verdict = bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
	if (verdict == XDP_REDIRECT)
		counters->delivered++;
	else
		counters->passed++;
	return verdict;
}

SEC("xdp")
int wirespan_xdp(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct counters *counters = bpf_map_lookup_elem(&statistics, &zero);
	if (!counters)
		return XDP_PASS;
	/* With a barrier where user space waits until no CPU is in here; see src/xdp/shunt.rs. */
	if (settings.shunt)
		__sync_fetch_and_add(&counters->received, 1);
	else
		counters->received++;
	/* A queue without a socket stays with the network stack. Only looked up: that takes no call, as to redirect does. */
	__u32 queue = ctx->rx_queue_index;
	if (!bpf_map_lookup_elem(&sockets, &queue)) {
		counters->passed++;
		return XDP_PASS;
	}
	return capture(ctx, counters);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
