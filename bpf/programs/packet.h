/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The innermost packet of a frame: what parse.h finds, and what the other headers work on. */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* IP protocol numbers. */
#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_GRE 47
#define PROTOCOL_AUTHENTICATION 51
#define PROTOCOL_ICMPV6 58
#define PROTOCOL_SCTP 132
#define PROTOCOL_UDP_LITE 136

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04

/* The numbers of ShuntKey::tunnel_kind. */
enum tunnel_kind {
	TUNNEL_NONE,
	TUNNEL_VXLAN,
	TUNNEL_GENEVE,
	TUNNEL_GRE,
	TUNNEL_ERSPAN,
	TUNNEL_IPIP,
	TUNNEL_GTPU,
};

/* Set in packet.vlan when there is a tag. */
#define VLAN_PRESENT 0x1000
#define VLAN_TAG_LEN 4

/* In network byte order; IPv4 as ::ffff:a.b.c.d. */
struct address {
	__u32 words[4];
};

/* Numbers are in host byte order. */
struct packet {
	struct address src;
	struct address dst;
	/* The identifier for ICMP echo; 0 where there are no ports, and for all IP fragments. */
	__u16 src_port;
	__u16 dst_port;
	/* Outermost tag of the innermost Ethernet frame: its id with VLAN_PRESENT, or 0. */
	__u16 vlan;
	__u8 protocol;
	__u8 tcp_flags;
	/* VNI, GRE key, ERSPAN session or TEID of the innermost tunnel. */
	__u32 tunnel_id;
	__u8 tunnel_kind;
	/* There is an IP packet; without, only the VLAN means something. */
	bool found;
	bool v6;
	bool fragment;
	/* Bytes behind the innermost L3 header and behind the L4 header, by the IP header's length. */
	__u32 l3_len;
	__u32 l4_len;
	/* Where the L4 header ends in the frame. */
	__u32 headers_len;
	__u32 seq;
	__u32 ack;
	__u16 window;
};
