/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Which frames are wanted; src/xdp/filter.rs says by which rules and writes the maps. */
#pragma once

#include "packet.h"

#define NETWORKS_MAX 65536
#define TUNNEL_IDS_MAX 65536

/* Values of the maps of networks and tunnel ids. */
#define RULE_ALLOW 1
#define RULE_DENY 2

enum dimension {
	PROTOCOL,
	NETWORK,
	PORT,
	VLAN,
	TUNNEL_ID,
	DIMENSIONS,
};

/* The same as Sets in src/xdp/filter.rs: a bit for each member. */
struct filter_sets {
	/* Bit 1 << dimension: there are rules, and there are rules that allow. */
	__u32 used;
	__u32 allowing;
	__u64 protocols_allowed[256 / 64];
	__u64 protocols_denied[256 / 64];
	__u64 vlans_allowed[4096 / 64];
	__u64 vlans_denied[4096 / 64];
	__u64 ports_allowed[65536 / 64];
	__u64 ports_denied[65536 / 64];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct filter_sets);
	__uint(max_entries, 1);
} filter_sets SEC(".maps");

struct network_v4 {
	__u32 prefix;
	__u32 address;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct network_v4);
	__type(value, __u32);
	__uint(max_entries, NETWORKS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} networks_v4 SEC(".maps");

struct network_v6 {
	__u32 prefix;
	struct address address;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct network_v6);
	__type(value, __u32);
	__uint(max_entries, NETWORKS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} networks_v6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, TUNNEL_IDS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} tunnel_ids SEC(".maps");

static __always_inline __u32 rule(const __u32 *found)
{
	return found ? *found : 0;
}

static __always_inline __u32 network_rule(const struct address *address, bool v6)
{
	if (v6) {
		struct network_v6 key = { .prefix = 128, .address = *address };
		return rule(bpf_map_lookup_elem(&networks_v6, &key));
	}
	struct network_v4 key = { .prefix = 32, .address = address->words[3] };
	return rule(bpf_map_lookup_elem(&networks_v4, &key));
}

static __always_inline __u32 bit(const __u64 *set, __u32 member)
{
	return set[member / 64] >> (member % 64) & 1;
}

static __always_inline __u32 set_rule(const __u64 *allowed, const __u64 *denied, __u32 member)
{
	return bit(allowed, member) * RULE_ALLOW | bit(denied, member) * RULE_DENY;
}

/* All rules that the packet meets in one dimension. */
static __always_inline __u32 rules(const struct filter_sets *sets, const struct packet *packet,
				   enum dimension dimension)
{
	if (dimension == VLAN)
		return set_rule(sets->vlans_allowed, sets->vlans_denied, packet->vlan & 0x0fff);
	if (!packet->found)
		return 0;
	switch (dimension) {
	case PROTOCOL:
		return set_rule(sets->protocols_allowed, sets->protocols_denied, packet->protocol);
	case NETWORK:
		return network_rule(&packet->src, packet->v6) | network_rule(&packet->dst, packet->v6);
	case PORT:
		/* Later fragments do not say their ports. */
		if (packet->fragment)
			return RULE_ALLOW;
		if (packet->protocol != PROTOCOL_TCP && packet->protocol != PROTOCOL_UDP &&
		    packet->protocol != PROTOCOL_SCTP && packet->protocol != PROTOCOL_UDP_LITE)
			return 0;
		return set_rule(sets->ports_allowed, sets->ports_denied, packet->src_port) |
		       set_rule(sets->ports_allowed, sets->ports_denied, packet->dst_port);
	default:
		if (packet->tunnel_kind == TUNNEL_NONE)
			return 0;
		return rule(bpf_map_lookup_elem(&tunnel_ids, &packet->tunnel_id));
	}
}

/* The dimension that rejects the packet, or DIMENSIONS. */
static __always_inline enum dimension filter(const struct packet *packet)
{
	__u32 zero = 0;
	const struct filter_sets *sets = bpf_map_lookup_elem(&filter_sets, &zero);
	if (!sets)
		return DIMENSIONS;
	__u32 used = sets->used;
	if (!used)
		return DIMENSIONS;
#pragma clang loop unroll(full)
	for (enum dimension dimension = 0; dimension < DIMENSIONS; dimension++) {
		if (!(used & 1 << dimension))
			continue;
		__u32 met = rules(sets, packet, dimension);
		if (met & RULE_DENY || (!(met & RULE_ALLOW) && sets->allowing & 1 << dimension))
			return dimension;
	}
	return DIMENSIONS;
}
