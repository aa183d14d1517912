/* Rules in the NIC that drop and count one direction of one UDP flow (rte_flow). */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <rte_byteorder.h>
#include <rte_errno.h>
#include <rte_flow.h>
#include <rte_ip.h>

#include "shim.h"

#define UNTAGGED 0xffff

/* The items of one rule with what they point to. */
struct pattern {
	struct rte_flow_item items[5];
	struct rte_flow_item_eth eth, eth_mask;
	struct rte_flow_item_vlan vlan, vlan_mask;
	struct rte_flow_item_ipv4 ipv4, ipv4_mask;
	struct rte_flow_item_ipv6 ipv6, ipv6_mask;
	struct rte_flow_item_udp udp, udp_mask;
};

static const struct rte_flow_attr ingress = { .ingress = 1 };
static const struct rte_flow_indir_action_conf ingress_action = { .ingress = 1 };
static const struct rte_flow_action count = { .type = RTE_FLOW_ACTION_TYPE_COUNT };

/* All headers have the same length in every frame that matches, so that the payload follows from packets and bytes. */
static void fill_ip(struct pattern *pattern, const struct ws_flow_key *key, struct rte_flow_item *item)
{
	if (key->ipv6) {
		memcpy(&pattern->ipv6.hdr.src_addr, key->src, 16);
		memcpy(&pattern->ipv6.hdr.dst_addr, key->dst, 16);
		memset(&pattern->ipv6_mask.hdr.src_addr, 0xff, 16);
		memset(&pattern->ipv6_mask.hdr.dst_addr, 0xff, 16);
		pattern->ipv6.hdr.proto = IPPROTO_UDP;
		pattern->ipv6_mask.hdr.proto = 0xff;
		*item = (struct rte_flow_item){ RTE_FLOW_ITEM_TYPE_IPV6, &pattern->ipv6, NULL, &pattern->ipv6_mask };
		return;
	}
	memcpy(&pattern->ipv4.hdr.src_addr, key->src, 4);
	memcpy(&pattern->ipv4.hdr.dst_addr, key->dst, 4);
	memset(&pattern->ipv4_mask.hdr.src_addr, 0xff, 4);
	memset(&pattern->ipv4_mask.hdr.dst_addr, 0xff, 4);
	pattern->ipv4.hdr.version_ihl = 0x45;
	pattern->ipv4_mask.hdr.version_ihl = 0xff;
	pattern->ipv4.hdr.next_proto_id = IPPROTO_UDP;
	pattern->ipv4_mask.hdr.next_proto_id = 0xff;
	pattern->ipv4_mask.hdr.fragment_offset = RTE_BE16(0x3fff);
	*item = (struct rte_flow_item){ RTE_FLOW_ITEM_TYPE_IPV4, &pattern->ipv4, NULL, &pattern->ipv4_mask };
}

static void fill(struct pattern *pattern, const struct ws_flow_key *key)
{
	memset(pattern, 0, sizeof(*pattern));
	struct rte_flow_item *item = pattern->items;
	pattern->eth_mask.has_vlan = 1;
	pattern->eth.has_vlan = key->vlan != UNTAGGED;
	*item++ = (struct rte_flow_item){ RTE_FLOW_ITEM_TYPE_ETH, &pattern->eth, NULL, &pattern->eth_mask };
	if (key->vlan != UNTAGGED) {
		pattern->vlan.hdr.vlan_tci = rte_cpu_to_be_16(key->vlan);
		pattern->vlan_mask.hdr.vlan_tci = RTE_BE16(0x0fff);
		pattern->vlan_mask.has_more_vlan = 1;
		*item++ = (struct rte_flow_item){ RTE_FLOW_ITEM_TYPE_VLAN, &pattern->vlan, NULL, &pattern->vlan_mask };
	}
	fill_ip(pattern, key, item++);
	pattern->udp.hdr.src_port = rte_cpu_to_be_16(key->src_port);
	pattern->udp.hdr.dst_port = rte_cpu_to_be_16(key->dst_port);
	pattern->udp_mask.hdr.src_port = RTE_BE16(0xffff);
	pattern->udp_mask.hdr.dst_port = RTE_BE16(0xffff);
	*item++ = (struct rte_flow_item){ RTE_FLOW_ITEM_TYPE_UDP, &pattern->udp, NULL, &pattern->udp_mask };
	*item = (struct rte_flow_item){ .type = RTE_FLOW_ITEM_TYPE_END };
}

int ws_flow_create(uint16_t port, const struct ws_flow_key *key, struct ws_flow *flow)
{
	struct rte_flow_error error = { 0 };
	struct pattern pattern;
	fill(&pattern, key);
	/* A counter of its own outlives its rule: nothing is missed between the last reading and the rule's end. */
	flow->counter = rte_flow_action_handle_create(port, &ingress_action, &count, &error);
	if (flow->counter == NULL)
		return -rte_errno;
	const struct rte_flow_action actions[] = {
		{ RTE_FLOW_ACTION_TYPE_INDIRECT, flow->counter },
		{ RTE_FLOW_ACTION_TYPE_DROP, NULL },
		{ RTE_FLOW_ACTION_TYPE_END, NULL },
	};
	flow->rule = rte_flow_create(port, &ingress, pattern.items, actions, &error);
	if (flow->rule == NULL) {
		int result = -rte_errno;
		ws_flow_forget(port, flow);
		return result;
	}
	return 0;
}

int ws_flow_read(uint16_t port, const struct ws_flow *flow, uint64_t *packets, uint64_t *bytes)
{
	struct rte_flow_error error = { 0 };
	struct rte_flow_query_count counted = { 0 };
	if (rte_flow_action_handle_query(port, flow->counter, &counted, &error) != 0)
		return -rte_errno;
	if (!counted.hits_set || !counted.bytes_set)
		return -ENOTSUP;
	*packets = counted.hits;
	*bytes = counted.bytes;
	return 0;
}

/* From now on the frames are delivered; the counter can still be read. */
int ws_flow_stop(uint16_t port, struct ws_flow *flow)
{
	struct rte_flow_error error = { 0 };
	if (flow->rule != NULL && rte_flow_destroy(port, flow->rule, &error) != 0)
		return -rte_errno;
	flow->rule = NULL;
	return 0;
}

void ws_flow_forget(uint16_t port, struct ws_flow *flow)
{
	struct rte_flow_error error = { 0 };
	if (flow->counter != NULL)
		rte_flow_action_handle_destroy(port, flow->counter, &error);
	flow->counter = NULL;
}

/* Makes, reads and removes a rule for documentation addresses, and says in `why` what the driver refused. */
int ws_flow_check(uint16_t port, char *why)
{
	const struct ws_flow_key key = {
		.src = { 192, 0, 2, 1 },
		.dst = { 192, 0, 2, 2 },
		.src_port = 9,
		.dst_port = 9,
		.vlan = UNTAGGED,
	};
	struct ws_flow flow = { NULL, NULL };
	uint64_t packets, bytes;
	const char *what = "a rule with a counter of its own";
	int result = ws_flow_create(port, &key, &flow);
	if (result == 0) {
		what = "to count packets and bytes of a rule";
		result = ws_flow_read(port, &flow, &packets, &bytes);
		ws_flow_stop(port, &flow);
		ws_flow_forget(port, &flow);
	}
	if (result < 0)
		snprintf(why, WS_TEXT, "the driver refuses %s", what);
	return result;
}
