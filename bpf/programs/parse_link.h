/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What lies before IP: Ethernet, VLAN tags, MPLS, PPPoE. See parse.h. */
#pragma once

#include "parse_walk.h"

static __always_inline enum next ethernet(parse_context *ctx, struct walk *walk)
{
	const __u8 *header = take(ctx, walk, 14);
	if (!header)
		return BAD;
	walk->ethertype = be16(header + 12);
	return ETHERTYPE;
}

static __always_inline enum next vlan_tag(parse_context *ctx, struct walk *walk, struct packet *packet)
{
	const __u8 *tag = take(ctx, walk, 4);
	if (!tag)
		return BAD;
	__u16 id = be16(tag) & 0x0fff;
	if (!packet->vlan && id)
		packet->vlan = id | VLAN_PRESENT;
	walk->ethertype = be16(tag + 2);
	return ETHERTYPE;
}

static __always_inline enum next ethertype(parse_context *ctx, struct walk *walk, struct packet *packet)
{
	switch (walk->ethertype) {
	case ETHERTYPE_IPV4:
		return IPV4;
	case ETHERTYPE_IPV6:
		return IPV6;
	case ETHERTYPE_VLAN:
	case ETHERTYPE_PROVIDER_VLAN:
	case ETHERTYPE_QINQ_VLAN:
		return vlan_tag(ctx, walk, packet);
	case ETHERTYPE_MPLS:
	case ETHERTYPE_MPLS_MULTICAST:
		return MPLS;
	case ETHERTYPE_PPPOE_SESSION:
		return PPPOE;
	case ETHERTYPE_FABRIC_PATH:
		if (!skip(walk, 2))
			return BAD;
		return inner_ethernet(walk, packet);
	case ETHERTYPE_TEB:
		return inner_ethernet(walk, packet);
	case ETHERTYPE_ARP:
	case ETHERTYPE_RARP:
	case ETHERTYPE_PPPOE_DISCOVERY:
	case ETHERTYPE_SLOW_PROTOCOLS:
	case ETHERTYPE_EAPOL:
	case ETHERTYPE_LLDP:
	case ETHERTYPE_PTP:
	case ETHERTYPE_CFM:
	case ETHERTYPE_CONFIGURATION_TEST:
		return NONE;
	default:
		if (walk->ethertype >= ETHERTYPE_MIN)
			return BAD;
		limit(walk, walk->ethertype);
		return LLC;
	}
}

/* IEEE 802.2, with SNAP (RFC 1042). */
static __always_inline enum next llc(parse_context *ctx, struct walk *walk)
{
	const __u8 *header = take(ctx, walk, 3);
	if (!header)
		return BAD;
	switch (header[0]) {
	case 0x06:
		return IPV4;
	case 0x42: /* Spanning tree. */
	case 0xfe: /* IS-IS. */
		return NONE;
	case 0xaa:
		break;
	default:
		return BAD;
	}
	header = take(ctx, walk, 5);
	if (!header || header[0] || header[1])
		return BAD;
	switch (header[2]) {
	case 0:
	case 0xf8:
		walk->ethertype = be16(header + 3);
		return ETHERTYPE;
	default: /* Cisco's own, such as CDP. */
		return header[2] == 0x0c ? NONE : BAD;
	}
}

/* Has an EtherType where an Ethernet frame has it. */
static __always_inline bool looks_like_ethernet(parse_context *ctx, struct walk *walk)
{
	__u32 offset = walk->offset;
	const __u8 *header = take(ctx, walk, 14);
	walk->offset = offset;
	if (!header)
		return false;
	switch (be16(header + 12)) {
	case ETHERTYPE_IPV4:
	case ETHERTYPE_IPV6:
	case ETHERTYPE_ARP:
	case ETHERTYPE_VLAN:
	case ETHERTYPE_PROVIDER_VLAN:
		return true;
	default:
		return false;
	}
}

/* RFC 3032: one label. What the last one carries is not said: IP by the nibble, else a pseudowire (RFC 4448). */
static __always_inline enum next mpls(parse_context *ctx, struct walk *walk, struct packet *packet)
{
	const __u8 *label = take(ctx, walk, 4);
	if (!label)
		return BAD;
	if (!(label[2] & 1))
		return MPLS;
	const __u8 *first = take(ctx, walk, 1);
	if (!first)
		return BAD;
	walk->offset--;
	switch (*first >> 4) {
	case 4:
		return IPV4;
	case 6:
		return IPV6;
	case 1:
		return NONE;
	case 0:
		/* A control word (RFC 4385). */
		if (!looks_like_ethernet(ctx, walk) && !take(ctx, walk, 4))
			return BAD;
		break;
	}
	return inner_ethernet(walk, packet);
}

/* RFC 2516. */
static __always_inline enum next pppoe(parse_context *ctx, struct walk *walk)
{
	const __u8 *header = take(ctx, walk, 6);
	if (!header || header[0] != 0x11 || header[1] != 0)
		return BAD;
	limit(walk, be16(header + 4));
	const __u8 *protocol = take(ctx, walk, 2);
	if (!protocol)
		return BAD;
	switch (be16(protocol)) {
	case 0x0021:
		return IPV4;
	case 0x0057:
		return IPV6;
	case 0x0281:
	case 0x0283:
		return MPLS;
	default:
		return NONE;
	}
}
