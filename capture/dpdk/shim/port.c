/* Ports: what the device can do, how it is set up, its memory and its counters. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_mempool.h>
#include <rte_memzone.h>
#include <rte_string_fns.h>

#include "shim.h"

#define RSS_TYPES (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_SCTP)
#define KEY_MAX 128

static void copy_text(char *to, const char *from)
{
	rte_strscpy(to, from == NULL ? "" : from, WS_TEXT);
}

int ws_port_find(const char *name)
{
	uint16_t port;
	int result = rte_eth_dev_get_port_by_name(name, &port);
	return result < 0 ? result : port;
}

int ws_port_name(uint16_t port, char *name)
{
	char full[RTE_ETH_NAME_MAX_LEN];
	if (port >= RTE_MAX_ETHPORTS)
		return -ERANGE;
	if (!rte_eth_dev_is_valid_port(port))
		return -ENODEV;
	int result = rte_eth_dev_get_name_by_port(port, full);
	if (result == 0)
		copy_text(name, full);
	return result;
}

int ws_port_device(uint16_t port, struct ws_device *device)
{
	struct rte_eth_dev_info info;
	int result = rte_eth_dev_info_get(port, &info);
	if (result < 0)
		return result;
	copy_text(device->driver, info.driver_name);
	device->rss_types = info.flow_type_rss_offloads & RSS_TYPES;
	device->socket = rte_eth_dev_socket_id(port);
	device->rx_queues = info.max_rx_queues;
	device->tx_queues = info.max_tx_queues;
	device->mtu_max = info.max_mtu;
	device->scatters = !!(info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER);
	device->stamps = !!(info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_TIMESTAMP);
	return 0;
}

int ws_port_configure(uint16_t port, struct ws_config *config)
{
	/* Both directions of a connection get the same Toeplitz hash when the key repeats every 16 bits. DPDK keeps the pointer: many
	 * drivers read the key only when the port is started. */
	static uint8_t key[KEY_MAX];
	for (size_t at = 0; at < sizeof(key); at += 2) {
		key[at] = 0x6d;
		key[at + 1] = 0x5a;
	}
	struct rte_eth_dev_info info;
	int result = rte_eth_dev_info_get(port, &info);
	if (result < 0)
		return result;
	struct rte_eth_conf conf = { .rxmode.mq_mode = RTE_ETH_MQ_RX_NONE };
	conf.rxmode.mtu = config->mtu;
	if (config->scatter)
		conf.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_SCATTER;
	if (config->stamps)
		conf.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_TIMESTAMP;
	if (config->rss_types != 0 && info.hash_key_size <= KEY_MAX) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rxmode.offloads |= info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_RSS_HASH;
		conf.rx_adv_conf.rss_conf.rss_hf = config->rss_types;
		conf.rx_adv_conf.rss_conf.rss_key = key;
		conf.rx_adv_conf.rss_conf.rss_key_len = info.hash_key_size ? info.hash_key_size : 40;
	}
	result = rte_eth_dev_configure(port, config->rx_queues, config->tx_queues, &conf);
	if (result < 0)
		return result;
	return rte_eth_dev_adjust_nb_rx_tx_desc(port, &config->rx_descriptors, &config->tx_descriptors);
}

int ws_rx_setup(uint16_t port, uint16_t queue, uint16_t descriptors, int socket, const struct ws_pool *pool)
{
	struct rte_eth_dev_info info;
	int result = rte_eth_dev_info_get(port, &info);
	if (result < 0)
		return result;
	/* What the port was configured with holds for all its queues. */
	struct rte_eth_rxconf conf = info.default_rxconf;
	conf.offloads = 0;
	return rte_eth_rx_queue_setup(port, queue, descriptors, socket, &conf, pool->mempool);
}

int ws_tx_setup(uint16_t port, uint16_t queue, uint16_t descriptors, int socket)
{
	return rte_eth_tx_queue_setup(port, queue, descriptors, socket, NULL);
}

int ws_port_start(uint16_t port)
{
	return rte_eth_dev_start(port);
}

int ws_port_promiscuous(uint16_t port)
{
	return rte_eth_promiscuous_enable(port);
}

int ws_port_mtu(uint16_t port)
{
	uint16_t mtu;
	int result = rte_eth_dev_get_mtu(port, &mtu);
	return result < 0 ? result : mtu;
}

int ws_port_removed(uint16_t port)
{
	return rte_eth_dev_is_removed(port);
}

void ws_port_close(uint16_t port)
{
	rte_eth_dev_stop(port);
	rte_eth_dev_close(port);
}

int ws_port_clock(uint16_t port, uint64_t *ticks)
{
	return rte_eth_read_clock(port, ticks);
}

int ws_port_stats(uint16_t port, struct ws_stats *stats)
{
	struct rte_eth_stats all;
	int result = rte_eth_stats_get(port, &all);
	if (result < 0)
		return result;
	*stats = (struct ws_stats){
		.packets = all.ipackets,
		.bytes = all.ibytes,
		.missed = all.imissed,
		.errors = all.ierrors,
		.no_mbuf = all.rx_nombuf,
	};
	return 0;
}

/* How many there are; as many as there is room for are written. */
int ws_port_xstats(uint16_t port, struct ws_xstat *stats, unsigned int room)
{
	int count = rte_eth_xstats_get(port, NULL, 0);
	if (count <= 0 || stats == NULL)
		return count;
	struct rte_eth_xstat *values = calloc(count, sizeof(*values));
	struct rte_eth_xstat_name *names = calloc(count, sizeof(*names));
	int result = -ENOMEM;
	if (values != NULL && names != NULL) {
		result = rte_eth_xstats_get(port, values, count);
		if (result > count || rte_eth_xstats_get_names(port, names, count) != count)
			result = -EAGAIN;
	}
	for (int at = 0; at < result && (unsigned int)at < room; at++) {
		copy_text(stats[at].name, values[at].id < (uint64_t)count ? names[values[at].id].name : "");
		stats[at].value = values[at].value;
	}
	free(values);
	free(names);
	return result;
}

/* One memory zone holds all mbufs and the spare memory, so that every frame lies in one region. */
int ws_pool_create(const char *name, uint32_t mbufs, uint32_t cache, uint32_t frame_bytes, uint64_t spare,
		   int socket, struct ws_pool *pool)
{
	memset(pool, 0, sizeof(*pool));
	uint32_t room = frame_bytes + RTE_PKTMBUF_HEADROOM;
	if (room > UINT16_MAX)
		return -EINVAL;
	struct rte_mempool *mempool = rte_mempool_create_empty(name, mbufs, sizeof(struct rte_mbuf) + room, cache,
							       sizeof(struct rte_pktmbuf_pool_private), socket, 0);
	if (mempool == NULL)
		return -rte_errno;
	pool->mempool = mempool;
	int result = rte_mempool_set_ops_byname(mempool, rte_mbuf_best_mempool_ops(), NULL);
	if (result < 0)
		goto fail;
	struct rte_pktmbuf_pool_private private = { .mbuf_data_room_size = room };
	rte_pktmbuf_pool_init(mempool, &private);

	size_t page = 0, least = 0, align = 0;
	result = rte_mempool_get_page_size(mempool, &page);
	if (result < 0)
		goto fail;
	rte_mempool_calc_mem_size_t calc = rte_mempool_get_ops(mempool->ops_index)->calc_mem_size;
	if (calc == NULL)
		calc = rte_mempool_op_calc_mem_size_default;
	ssize_t bytes = calc(mempool, mbufs, page ? rte_bsf64(page) : 0, &least, &align);
	if (bytes < 0) {
		result = bytes;
		goto fail;
	}
	align = RTE_MAX(align, (size_t)RTE_CACHE_LINE_SIZE);
	pool->spare = RTE_ALIGN_CEIL((uint64_t)bytes, RTE_CACHE_LINE_SIZE);
	pool->len = pool->spare + spare;
	const struct rte_memzone *zone = rte_memzone_reserve_aligned(name, pool->len, socket, 0, align);
	if (zone == NULL) {
		result = -rte_errno;
		goto fail;
	}
	pool->zone = zone;
	pool->base = zone->addr;
	result = rte_mempool_populate_virt(mempool, zone->addr, pool->spare, page ? page : pool->spare, NULL, NULL);
	if (result >= 0 && (uint32_t)result < mbufs)
		result = -ENOMEM;
	if (result < 0)
		goto fail;
	rte_mempool_obj_iter(mempool, rte_pktmbuf_init, NULL);
	return 0;
fail:
	ws_pool_free(pool);
	return result;
}

void ws_pool_free(struct ws_pool *pool)
{
	rte_mempool_free(pool->mempool);
	rte_memzone_free(pool->zone);
}
