/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* How far the way through a frame is, how headers are taken off, and how a tunnel is entered. See parse.h. */
#pragma once

#include "packet.h"

#define TUNNELS_MAX 4
/* No header is looked for further in. */
#define OFFSET_MAX 2000

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_TEB 0x6558
#define ETHERTYPE_RARP 0x8035
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_SLOW_PROTOCOLS 0x8809
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_MPLS 0x8847
#define ETHERTYPE_MPLS_MULTICAST 0x8848
#define ETHERTYPE_PPPOE_DISCOVERY 0x8863
#define ETHERTYPE_PPPOE_SESSION 0x8864
#define ETHERTYPE_EAPOL 0x888e
#define ETHERTYPE_PROVIDER_VLAN 0x88a8
#define ETHERTYPE_LLDP 0x88cc
#define ETHERTYPE_PTP 0x88f7
#define ETHERTYPE_CFM 0x8902
#define ETHERTYPE_FABRIC_PATH 0x8903
#define ETHERTYPE_CONFIGURATION_TEST 0x9000
#define ETHERTYPE_QINQ_VLAN 0x9100
#define ETHERTYPE_MIN 0x0600

/* What comes next, or how the walk ends. */
enum next {
	ETHERNET,
	ETHERTYPE,
	LLC,
	MPLS,
	PPPOE,
	IP,
	IPV4,
	IPV6,
	EXTENSION,
	UPPER,
	VXLAN,
	GENEVE,
	GTPU,
	GTPU_EXTENSION,
	GRE,
	ERSPAN,
	/* The packet is complete. */
	FOUND,
	/* A header does not check out: the packet is that of the tunnel outside, if there is one. */
	BAD,
	/* There is no packet in it, or none that can be told. */
	NONE,
};

struct walk {
	struct packet packet;
	/* The packet outside of the tunnel that is being looked into. */
	struct packet outer;
	/* Of the next header. */
	__u32 offset;
	/* Where the captured bytes of this layer end, and where the layer ends by what its header says. */
	__u32 captured_end;
	__u32 end;
	__u16 ethertype;
	/* Of the upper layer or extension header. */
	__u8 protocol;
	__u8 gtpu_extension;
	/* The IPv6 header says no length. */
	bool no_length;
	/* How many more tunnels may be entered. */
	__u8 depth;
#ifdef PARSE_HEADER_MAX
	__u8 header[PARSE_HEADER_MAX];
#endif
};

static __always_inline const void *load(parse_context *ctx, struct walk *walk, __u32 len);

static __always_inline __u16 be16(const __u8 *bytes)
{
	return bpf_ntohs(*(const __u16 *)bytes);
}

static __always_inline __u32 be32(const __u8 *bytes)
{
	return bpf_ntohl(*(const __u32 *)bytes);
}

/* Takes a header off the front. */
static __always_inline const __u8 *take(parse_context *ctx, struct walk *walk, __u32 len)
{
	if (walk->offset > OFFSET_MAX || walk->offset + len > walk->captured_end)
		return NULL;
	const __u8 *header = load(ctx, walk, len);
	walk->offset += len;
	return header;
}

/* Skips bytes that need not have been captured. */
static __always_inline bool skip(struct walk *walk, __u32 bytes)
{
	walk->offset += bytes;
	return walk->offset <= walk->end;
}

/* Cuts off what lies behind `bytes`. */
static __always_inline void limit(struct walk *walk, __u32 bytes)
{
	__u32 end = walk->offset + bytes;
	if (end < walk->end)
		walk->end = end;
	if (end < walk->captured_end)
		walk->captured_end = end;
}

/* Sets the length, which may be more than the frame had on the wire. */
static __always_inline void set_len(struct walk *walk, __u32 bytes)
{
	walk->end = walk->offset + bytes;
	if (walk->end < walk->captured_end)
		walk->captured_end = walk->end;
}

static __always_inline enum next inner_ethernet(struct walk *walk, struct packet *packet)
{
	if (walk->depth-- == 0)
		return NONE;
	packet->vlan = 0;
	return ETHERNET;
}

/* Goes on inside a tunnel whose header has been read. */
static __always_inline enum next inside(struct walk *walk, struct packet *packet, __u16 kind, __u32 id,
					enum next next)
{
	packet->tunnel_kind = kind;
	packet->tunnel_id = id;
	if (next == ETHERNET || (next == ETHERTYPE && walk->ethertype == ETHERTYPE_TEB))
		return inner_ethernet(walk, packet);
	return walk->depth-- == 0 ? NONE : next;
}
