/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Headers of tunnels. See parse.h. */
#pragma once

#include "parse_walk.h"

/* RFC 7348, and draft-ietf-nvo3-vxlan-gpe without service headers. */
static __always_inline enum next vxlan(parse_context *ctx, struct walk *walk, struct packet *packet)
{
	const __u8 *header = take(ctx, walk, 8);
	if (!header || !(header[0] & 0x08) || header[7])
		return BAD;
	__u32 vni = be32(header + 4) >> 8;
	if (!(header[0] & 0x04))
		return inside(walk, packet, TUNNEL_VXLAN, vni, ETHERNET);
	if (header[0] & 0x01)
		return BAD;
	switch (header[3]) {
	case 1:
	case 2:
		return inside(walk, packet, TUNNEL_VXLAN, vni, IP);
	case 3:
		return inside(walk, packet, TUNNEL_VXLAN, vni, ETHERNET);
	case 4: /* NSH is unsure. */
		return NONE;
	case 5:
		return inside(walk, packet, TUNNEL_VXLAN, vni, MPLS);
	default:
		return BAD;
	}
}

/* RFC 8926. */
static __always_inline enum next geneve(parse_context *ctx, struct walk *walk, struct packet *packet)
{
	const __u8 *header = take(ctx, walk, 8);
	if (!header || header[0] >> 6 || header[1] & 0x80)
		return BAD;
	walk->ethertype = be16(header + 2);
	__u32 vni = be32(header + 4) >> 8;
	if (!skip(walk, (header[0] & 0x3f) * 4))
		return BAD;
	return inside(walk, packet, TUNNEL_GENEVE, vni, ETHERTYPE);
}

/* 3GPP TS 29.281: G-PDUs. */
static __always_inline enum next gtpu(parse_context *ctx, struct walk *walk, struct packet *packet)
{
	const __u8 *header = take(ctx, walk, 8);
	if (!header || (header[0] & 0xf0) != 0x30 || header[1] != 255)
		return BAD;
	__u32 teid = be32(header + 4);
	bool optional = header[0] & 0x07;
	bool extended = header[0] & 0x04;
	limit(walk, be16(header + 2));
	walk->gtpu_extension = 0;
	if (optional) {
		const __u8 *fields = take(ctx, walk, 4);
		if (!fields)
			return BAD;
		if (extended)
			walk->gtpu_extension = fields[3];
	}
	packet->tunnel_kind = TUNNEL_GTPU;
	packet->tunnel_id = teid;
	return GTPU_EXTENSION;
}

/* The length in units of 4 bytes first, the type of the next last. */
static __always_inline enum next gtpu_extension(parse_context *ctx, struct walk *walk, struct packet *packet)
{
	if (!walk->gtpu_extension)
		return inside(walk, packet, packet->tunnel_kind, packet->tunnel_id, IP);
	const __u8 *len = take(ctx, walk, 1);
	if (!len || !*len)
		return BAD;
	walk->offset += *len * 4 - 2;
	const __u8 *next = take(ctx, walk, 1);
	if (!next)
		return BAD;
	walk->gtpu_extension = *next;
	return GTPU_EXTENSION;
}

/* RFC 2784, RFC 2890. */
static __always_inline enum next gre(parse_context *ctx, struct walk *walk, struct packet *packet)
{
	const __u8 *header = take(ctx, walk, 4);
	/* Source routes of RFC 1701, and bits that have to be 0 since. */
	if (!header || header[0] & 0x4f || header[1])
		return BAD;
	bool checksum = header[0] & 0x80, keyed = header[0] & 0x20, sequence = header[0] & 0x10;
	walk->ethertype = be16(header + 2);
	__u32 id = 0;
	if (checksum && !skip(walk, 4))
		return BAD;
	if (keyed) {
		const __u8 *key = take(ctx, walk, 4);
		if (!key)
			return BAD;
		id = be32(key);
	}
	if (sequence && !skip(walk, 4))
		return BAD;
	if (walk->ethertype == 0x88be && !sequence) /* ERSPAN type I has no header. */
		return inside(walk, packet, TUNNEL_ERSPAN, 0, ETHERNET);
	if (walk->ethertype == 0x88be || walk->ethertype == 0x22eb)
		return ERSPAN;
	return inside(walk, packet, TUNNEL_GRE, id, ETHERTYPE);
}

/* draft-foschiano-erspan: types II and III. */
static __always_inline enum next erspan(parse_context *ctx, struct walk *walk, struct packet *packet)
{
	const __u8 *header = take(ctx, walk, 8);
	if (!header)
		return BAD;
	__u32 version = header[0] >> 4, session = be16(header + 2) & 0x03ff;
	if (version == 1)
		return inside(walk, packet, TUNNEL_ERSPAN, session, ETHERNET);
	if (version != 2)
		return BAD;
	const __u8 *rest = take(ctx, walk, 4);
	if (!rest)
		return BAD;
	__u32 type = rest[2] >> 2 & 0x1f;
	if (rest[3] & 1 && !skip(walk, 8))
		return BAD;
	return type == 0   ? inside(walk, packet, TUNNEL_ERSPAN, session, ETHERNET)
	       : type == 2 ? inside(walk, packet, TUNNEL_ERSPAN, session, IP)
			   : BAD;
}
