/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * From a frame to its innermost packet, by the rules of dataplane/src/decode: the two must agree on which flow a frame
 * belongs to and how long it is. What those rules know and this file does not (LLC, NSH, jumbograms, more than TURNS
 * headers) is "unsure": such a frame has no packet here, so that nothing is done to it.
 *
 * A few headers in each turn of a loop. A turn is a global function, which the verifier checks once and on its own, and not for
 * every way that leads to it.
 *
 * A program that includes this defines before it: parse_context, its context; and `load`, which gives `len` captured bytes
 * at walk->offset, or NULL, and may put them into walk->header if PARSE_HEADER_MAX says that there is one.
 */
#pragma once

#include "packet.h"

#define TURNS 24
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

struct tunnel_port {
	__u16 port;
	__u16 kind;
};

#define TUNNEL_PORTS_MAX 8

/* UDP destination ports of tunnels, up to the first without a kind. */
const volatile struct tunnel_port tunnel_ports[TUNNEL_PORTS_MAX];

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
	return bytes[0] << 8 | bytes[1];
}

static __always_inline __u32 be32(const __u8 *bytes)
{
	return (__u32)bytes[0] << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3];
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
		/* LLC is unsure. */
		return walk->ethertype < ETHERTYPE_MIN ? NONE : BAD;
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

/* One turn, in the order of an ordinary frame, which is through in one. Global: see above. */
__attribute__((noinline)) int turn(parse_context *ctx, struct walk *walk, int next)
{
	if (!walk)
		return NONE;
	struct packet *packet = &walk->packet;
	switch (next) {
	case VXLAN:
		next = vxlan(ctx, walk, packet);
		break;
	case GENEVE:
		next = geneve(ctx, walk, packet);
		break;
	case GTPU:
		next = gtpu(ctx, walk, packet);
		break;
	case GTPU_EXTENSION:
		next = gtpu_extension(ctx, walk, packet);
		break;
	case GRE:
		next = gre(ctx, walk, packet);
		break;
	case ERSPAN:
		next = erspan(ctx, walk, packet);
		break;
	case MPLS:
		next = mpls(ctx, walk, packet);
		break;
	case PPPOE:
		next = pppoe(ctx, walk);
		break;
	}
	if (next == ETHERNET)
		next = ethernet(ctx, walk);
	if (next == ETHERTYPE)
		next = ethertype(ctx, walk, packet);
	if (next == IP)
		next = ip(ctx, walk);
	if (next == IPV4)
		next = ipv4(ctx, walk, packet);
	else if (next == IPV6)
		next = ipv6(ctx, walk, packet);
	else if (next == EXTENSION)
		next = extension(ctx, walk, packet);
	if (next == UPPER)
		next = upper(ctx, walk, packet);
	return next;
}

/* Finds the innermost packet. walk->packet.vlan is the tag that the NIC stripped, captured_end and end are set. */
static __always_inline void parse(parse_context *ctx, struct walk *walk, int next)
{
	walk->depth = TUNNELS_MAX;
	for (int i = 0; i < TURNS; i++) {
		next = turn(ctx, walk, next);
		if (next >= FOUND)
			break;
	}
	if (next == BAD && walk->outer.found)
		walk->packet = walk->outer;
	else
		walk->packet.found = next == FOUND;
}
