/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Flows whose frames are counted instead of delivered; src/xdp/shunt.rs is the other side.
 *
 * A flow has its counters, and a number under which its mode is kept: user space and a frame that wakes the flow can change
 * a mode in its place, while the counters stay to be read. The map throws nothing out.
 */
#pragma once

#include "packet.h"

/* The same as ShuntKey in capture/frame/src/shunt.rs. */
union shunt_key {
	struct {
		struct address a;
		struct address b;
		__u16 a_port;
		__u16 b_port;
		__u8 protocol;
		__u8 tunnel_kind;
		__u16 vlan;
		__u32 tunnel_id;
		__u32 zero;
	};
	__u64 words[6];
};

enum shunt_mode {
	SHUNT_NONE,
	SHUNT_COUNT,
	SHUNT_HEADERS,
};

/* The same as Counters in src/xdp/shunt.rs. */
struct shunt_counters {
	__u64 packets;
	__u64 bytes;
	__u64 l3_bytes;
	__u64 l4_bytes;
	/* CLOCK_MONOTONIC_COARSE, which is read in a tenth of the time. */
	__u64 first_ns;
	__u64 last_ns;
	__u32 first_seq;
	__u32 next_seq;
	__u32 last_ack;
	__u32 zero_windows;
	__u64 tcp_flags;
};

struct shunt_flow {
	union shunt_key key;
	/* Where its mode is. */
	__u32 number;
	__u32 reserved;
	/* Of side A and of side B. */
	struct shunt_counters directions[2];
};

/* max_entries of both is set when they are loaded. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__type(key, __u64);
	__type(value, struct shunt_flow);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} shunt_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
} shunt_modes SEC(".maps");

/* What CLOCK_MONOTONIC_COARSE was at the last tick of jiffies: both go on together, and jiffies are read in no time. */
struct tick {
	__u64 jiffies;
	__u64 now_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct tick);
	__uint(max_entries, 1);
} ticks SEC(".maps");

static __always_inline __u64 coarse_ns(void)
{
	__u32 zero = 0;
	struct tick *tick = bpf_map_lookup_elem(&ticks, &zero);
	if (!tick)
		return bpf_ktime_get_coarse_ns();
	__u64 jiffies = bpf_jiffies64();
	if (tick->jiffies != jiffies) {
		tick->jiffies = jiffies;
		tick->now_ns = bpf_ktime_get_coarse_ns();
	}
	return tick->now_ns;
}

/* Side A is the smaller (address, port). */
static __always_inline bool source_is_a(const struct packet *packet)
{
#pragma clang loop unroll(full)
	for (int i = 0; i < 4; i++) {
		__u32 src = bpf_ntohl(packet->src.words[i]), dst = bpf_ntohl(packet->dst.words[i]);
		if (src != dst)
			return src < dst;
	}
	return packet->src_port <= packet->dst_port;
}

static __always_inline void shunt_key(union shunt_key *key, const struct packet *packet, bool from_a)
{
	key->a = from_a ? packet->src : packet->dst;
	key->b = from_a ? packet->dst : packet->src;
	key->a_port = from_a ? packet->src_port : packet->dst_port;
	key->b_port = from_a ? packet->dst_port : packet->src_port;
	key->protocol = packet->protocol;
	key->tunnel_kind = packet->tunnel_kind;
	key->vlan = packet->vlan;
	key->tunnel_id = packet->tunnel_id;
	key->zero = 0;
}

/*
 * Under which a flow is found: the kernel would take three times as long to hash and to compare the whole key. The same as
 * `hash` in src/xdp/shunt.rs. Addresses are read in network byte order, so that those of one network differ in lower bits.
 */
static __always_inline __u64 shunt_hash(const union shunt_key *key)
{
	return bpf_be64_to_cpu(key->words[0]) * 0x9e3779b97f4a7c15 + bpf_be64_to_cpu(key->words[1]) * 0xd6e8feb86659fd93 +
	       bpf_be64_to_cpu(key->words[2]) * 0xbf58476d1ce4e5b9 + bpf_be64_to_cpu(key->words[3]) * 0x94d049bb133111eb +
	       key->words[4] * 0xc2b2ae3d27d4eb4f + key->words[5] * 0x165667b19e3779f9;
}

static __always_inline bool same_key(const union shunt_key *key, const union shunt_key *other)
{
	__u64 differing = 0;
#pragma clang loop unroll(full)
	for (int i = 0; i < 6; i++)
		differing |= key->words[i] ^ other->words[i];
	return !differing;
}

static __always_inline void shunt_count(struct shunt_counters *counters, const struct packet *packet, __u32 wire_bytes)
{
	__u64 now_ns = coarse_ns();
	bool first = counters->packets++ == 0;
	counters->bytes += wire_bytes;
	counters->l3_bytes += packet->l3_len;
	counters->l4_bytes += packet->l4_len;
	counters->last_ns = now_ns;
	if (first)
		counters->first_ns = now_ns;
	if (packet->protocol != PROTOCOL_TCP)
		return;
	__u32 next_seq = packet->seq + packet->l4_len;
	if (first)
		counters->first_seq = packet->seq;
	if (first || (__s32)(next_seq - counters->next_seq) > 0)
		counters->next_seq = next_seq;
	counters->last_ack = packet->ack;
	counters->zero_windows += packet->window == 0;
	counters->tcp_flags |= packet->tcp_flags;
}

/*
 * What is to be done with the frame; SHUNT_COUNT when it was counted. Fragments are always delivered: only together
 * do they tell how many packets they are.
 */
static __always_inline enum shunt_mode shunt(const struct packet *packet, __u32 wire_bytes)
{
	if (!packet->found || packet->fragment)
		return SHUNT_NONE;
	bool from_a = source_is_a(packet);
	union shunt_key key;
	shunt_key(&key, packet, from_a);
	__u64 hash = shunt_hash(&key);
	struct shunt_flow *flow = bpf_map_lookup_elem(&shunt_flows, &hash);
	if (!flow || !same_key(&flow->key, &key))
		return SHUNT_NONE;
	__u32 number = flow->number;
	__u32 *mode = bpf_map_lookup_elem(&shunt_modes, &number);
	if (!mode || *mode == SHUNT_NONE)
		return SHUNT_NONE;
	if (packet->protocol == PROTOCOL_TCP && packet->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST)) {
		*mode = SHUNT_NONE;
		return SHUNT_NONE;
	}
	if (*mode == SHUNT_HEADERS)
		return SHUNT_HEADERS;
	shunt_count(&flow->directions[from_a ? 0 : 1], packet, wire_bytes);
	return SHUNT_COUNT;
}
