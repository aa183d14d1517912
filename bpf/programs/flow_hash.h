/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The symmetric hash of a flow; src/flow_hash.rs says what it is. */
#pragma once

#include "packet.h"

const volatile __u64 seed;

static __always_inline __u64 mix(__u64 x)
{
	x *= 0x9e3779b97f4a7c15;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93;
	return x ^ x >> 32;
}

static __always_inline __u64 flow_end(const struct address *address, bool v6, __u64 port)
{
	__u64 low = bpf_ntohl(address->words[3]);
	if (!v6)
		return mix(seed ^ (low << 16 | port));
	__u64 upper = (__u64)bpf_ntohl(address->words[0]) << 32 | bpf_ntohl(address->words[1]);
	__u64 lower = (__u64)bpf_ntohl(address->words[2]) << 32 | low;
	return mix(mix(mix(seed ^ upper) ^ lower) ^ port);
}

static __always_inline __u32 flow_hash(const struct packet *packet)
{
	__u64 both = flow_end(&packet->src, packet->v6, packet->src_port) +
		     flow_end(&packet->dst, packet->v6, packet->dst_port);
	__u32 hash = mix(both ^ packet->protocol) >> 32;
	return hash ? hash : 1;
}
