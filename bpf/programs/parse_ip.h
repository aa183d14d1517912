/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* IP, its extension headers, and the header behind it. See parse.h. */
#pragma once

#include "parse_walk.h"

struct tunnel_port {
	__u16 port;
	__u16 kind;
};

#define TUNNEL_PORTS_MAX 8

/* UDP destination ports of tunnels, up to the first without a kind. */
const volatile struct tunnel_port tunnel_ports[TUNNEL_PORTS_MAX];

static __always_inline enum next ip(parse_context *ctx, struct walk *walk)
{
	const __u8 *first = take(ctx, walk, 1);
	if (!first)
		return BAD;
	walk->offset--;
	return *first >> 4 == 4 ? IPV4 : *first >> 4 == 6 ? IPV6 : BAD;
}

/* All fragments of a datagram look the same, so that they stay together. */
static __always_inline enum next fragment(struct packet *packet, __u8 protocol)
{
	packet->protocol = protocol;
	packet->src_port = 0;
	packet->dst_port = 0;
	packet->tcp_flags = 0;
	packet->fragment = true;
	return FOUND;
}

/* RFC 791. */
static __always_inline enum next ipv4(parse_context *ctx, struct walk *walk, struct packet *packet)
{
	const __u8 *header = take(ctx, walk, 20);
	if (!header || header[0] < 0x45 || header[0] > 0x4f)
		return BAD;
	__u32 options = (header[0] & 0x0f) * 4 - 20;
	/* 0 with TCP segmentation offload. */
	__u32 total = be16(header + 2);
	if (total) {
		if (total < 20)
			return BAD;
		set_len(walk, total - 20);
	}
	packet->v6 = false;
	packet->src = (struct address){ { 0, 0, bpf_htonl(0xffff), bpf_htonl(be32(header + 12)) } };
	packet->dst = (struct address){ { 0, 0, bpf_htonl(0xffff), bpf_htonl(be32(header + 16)) } };
	walk->protocol = header[9];
	__u16 fragment_bits = be16(header + 6) & 0x3fff;
	if (options && !skip(walk, options))
		return BAD;
	return fragment_bits ? fragment(packet, walk->protocol) : UPPER;
}

/* RFC 8200. */
static __always_inline enum next ipv6(parse_context *ctx, struct walk *walk, struct packet *packet)
{
	const __u8 *header = take(ctx, walk, 40);
	if (!header || header[0] >> 4 != 6)
		return BAD;
	__u32 len = be16(header + 4);
	walk->no_length = len == 0;
	if (len)
		set_len(walk, len);
	packet->v6 = true;
	__builtin_memcpy(&packet->src, header + 8, sizeof(packet->src));
	__builtin_memcpy(&packet->dst, header + 24, sizeof(packet->dst));
	walk->protocol = header[6];
	return walk->protocol == PROTOCOL_TCP || walk->protocol == PROTOCOL_UDP ? UPPER : EXTENSION;
}

/* An IPv6 extension header, or IPv4's only one. */
static __always_inline enum next extension(parse_context *ctx, struct walk *walk, struct packet *packet)
{
	__u32 unit = 8;
	switch (walk->protocol) {
	case 0: /* Hop-by-hop options: a jumbo payload option may be in it. */
		if (walk->no_length)
			return NONE;
		break;
	case PROTOCOL_AUTHENTICATION:
		unit = 4;
		break;
	case 43: /* Routing. */
	case 60: /* Destination options. */
	case 135: /* Mobility. */
	case 139: /* HIP. */
	case 140: /* Shim6. */
		break;
	case 44: { /* Fragment. */
		const __u8 *header = take(ctx, walk, 8);
		if (!header)
			return BAD;
		walk->protocol = header[0];
		/* Neither offset nor more: an atomic fragment, whole in itself (RFC 6946). */
		return be16(header + 2) & 0xfff9 ? fragment(packet, walk->protocol) : EXTENSION;
	}
	default:
		return UPPER;
	}
	const __u8 *header = take(ctx, walk, 2);
	if (!header)
		return BAD;
	walk->protocol = header[0];
	return skip(walk, 6 + header[1] * unit) ? EXTENSION : BAD;
}

static __always_inline void ports(struct packet *packet, const __u8 *header)
{
	packet->src_port = be16(header);
	packet->dst_port = be16(header + 2);
}

/* RFC 9293 section 3.1. */
static __always_inline enum next tcp(parse_context *ctx, struct walk *walk, struct packet *packet)
{
	const __u8 *header = take(ctx, walk, 20);
	if (!header)
		return BAD;
	ports(packet, header);
	packet->seq = be32(header + 4);
	packet->ack = be32(header + 8);
	packet->tcp_flags = header[13];
	packet->window = be16(header + 14);
	__u32 len = (header[12] >> 4) * 4;
	return len >= 20 && skip(walk, len - 20) ? FOUND : BAD;
}

static __always_inline enum next icmp(parse_context *ctx, struct walk *walk, struct packet *packet, __u8 request, __u8 reply)
{
	const __u8 *header = take(ctx, walk, 8);
	if (!header)
		return BAD;
	if (header[0] == request || header[0] == reply)
		packet->src_port = packet->dst_port = be16(header + 4);
	return FOUND;
}

static __always_inline enum next tunnel_of_port(__u16 port)
{
#pragma clang loop unroll(full)
	for (int i = 0; i < TUNNEL_PORTS_MAX; i++) {
		__u16 kind = tunnel_ports[i].kind;
		if (kind == TUNNEL_NONE)
			return FOUND;
		if (tunnel_ports[i].port == port)
			return kind == TUNNEL_VXLAN ? VXLAN : kind == TUNNEL_GENEVE ? GENEVE : GTPU;
	}
	return FOUND;
}

/* RFC 768. Length 0 is a jumbogram's. */
static __always_inline enum next udp(parse_context *ctx, struct walk *walk, struct packet *packet)
{
	const __u8 *header = take(ctx, walk, 8);
	if (!header)
		return BAD;
	ports(packet, header);
	__u32 len = be16(header + 4);
	if (len) {
		if (len < 8)
			return BAD;
		limit(walk, len - 8);
	}
	return tunnel_of_port(packet->dst_port);
}

static __always_inline enum next upper_header(parse_context *ctx, struct walk *walk, struct packet *packet)
{
	switch (walk->protocol) {
	case PROTOCOL_TCP:
		return tcp(ctx, walk, packet);
	case PROTOCOL_UDP:
		return udp(ctx, walk, packet);
	case PROTOCOL_ICMP:
		return icmp(ctx, walk, packet, 8, 0);
	case PROTOCOL_ICMPV6:
		return icmp(ctx, walk, packet, 128, 129);
	case PROTOCOL_SCTP:
	case PROTOCOL_UDP_LITE: {
		const __u8 *header = take(ctx, walk, walk->protocol == PROTOCOL_SCTP ? 12 : 8);
		if (!header)
			return BAD;
		ports(packet, header);
		return FOUND;
	}
	case PROTOCOL_GRE:
		return GRE;
	case 4: /* IPv4 in IP (RFC 2003). */
	case 41: /* IPv6 in IP (RFC 4213). */
		return IP;
	default:
		return FOUND;
	}
}

/* What an IP packet carries. */
static __always_inline enum next upper(parse_context *ctx, struct walk *walk, struct packet *packet)
{
	if (walk->protocol == PROTOCOL_AUTHENTICATION && !packet->v6)
		return EXTENSION;
	packet->protocol = walk->protocol;
	packet->l3_len = walk->end - walk->offset;
	packet->src_port = 0;
	packet->dst_port = 0;
	packet->tcp_flags = 0;
	enum next next = upper_header(ctx, walk, packet);
	if (next == BAD)
		return BAD;
	packet->l4_len = walk->end - walk->offset;
	packet->headers_len = walk->offset;
	if (next == FOUND)
		return FOUND;
	packet->found = true;
	walk->outer = *packet;
	return next == IP ? inside(walk, packet, TUNNEL_IPIP, 0, IP) : next;
}
