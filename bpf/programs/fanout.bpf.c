// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Spreads the packets of an AF_PACKET fanout group over its sockets by the hash of the innermost packet, so that both
// directions of a flow are in one socket also when all come in one tunnel (PACKET_FANOUT_EBPF).

#include <linux/if_packet.h>

#include "packet.h"

typedef struct __sk_buff parse_context;
#define PARSE_HEADER_MAX 40

#include "parse.h"
#include "flow_hash.h"

/* What the kernel says in place of the length of an IEEE 802.3 frame. */
#define PROTOCOL_802_2 0x0004

/*
 * From the network header on, which is where a packet has one whatever its link is. That way leads to the packet's first buffer
 * alone. The other leads to all of them, from where the packet begins: the network header in what comes in.
 */
static __always_inline const void *load(struct __sk_buff *ctx, struct walk *walk, __u32 len)
{
	if (!bpf_skb_load_bytes_relative(ctx, walk->offset, walk->header, len, BPF_HDR_START_NET))
		return walk->header;
	if (ctx->pkt_type == PACKET_OUTGOING || bpf_skb_load_bytes(ctx, walk->offset, walk->header, len))
		return NULL;
	return walk->header;
}

/* The kernel takes it modulo the number of sockets. What is no packet has no flow to keep together. */
SEC("socket")
int wirespan_fanout(struct __sk_buff *ctx)
{
	struct walk walk = {
		.captured_end = 0xffff,
		.end = 0xffff,
		.ethertype = bpf_ntohs(ctx->protocol),
	};
	parse(ctx, &walk, walk.ethertype == PROTOCOL_802_2 ? LLC : ETHERTYPE);
	return walk.packet.found ? flow_hash(&walk.packet) : 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
