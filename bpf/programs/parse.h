/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * From a frame to its innermost packet, by the rules of dataplane/src/decode: the two must agree on which flow a frame
 * belongs to and how long it is. What those rules know and this file does not (NSH, jumbograms, more than TURNS
 * headers) is "unsure": such a frame has no packet here, so that nothing is done to it.
 *
 * A few headers in each turn of a loop. A turn is a global function, which the verifier checks once and on its own, and not for
 * every way that leads to it.
 *
 * A program that includes this defines before it: parse_context, its context; and `load`, which gives `len` captured bytes
 * at walk->offset, or NULL, and may put them into walk->header if PARSE_HEADER_MAX says that there is one.
 */
#pragma once

#include "parse_ip.h"
#include "parse_link.h"
#include "parse_tunnel.h"

#define TURNS 24

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
	case LLC:
		next = llc(ctx, walk);
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
	for (int i = 0; i < TURNS && next < FOUND; i++)
		next = turn(ctx, walk, next);
	if (next == BAD && walk->outer.found)
		walk->packet = walk->outer;
	else
		walk->packet.found = next == FOUND;
}
