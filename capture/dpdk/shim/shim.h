/* Our own small, stable C interface to DPDK: what is inline there, and what takes structures that differ between versions.
 * src/sys.rs declares the same. Results are 0 or more, or a negative errno. */
#ifndef WIRESPAN_DPDK_SHIM_H
#define WIRESPAN_DPDK_SHIM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct rte_mbuf;
struct rte_mempool;

#define WS_TEXT 64

/* eal.c */
int ws_eal_init(int argc, char **argv);
void ws_log_collect(void);
size_t ws_log_take(char *text, size_t room);
int ws_thread_register(void);
void ws_thread_unregister(void);

/* port.c */
struct ws_device {
	char driver[WS_TEXT];
	uint64_t rss_types;
	int32_t socket;
	uint16_t rx_queues;
	uint16_t tx_queues;
	uint16_t mtu_max;
	uint8_t scatters;
	uint8_t stamps;
};

struct ws_config {
	uint64_t rss_types; /* 0: frames are not spread */
	uint16_t rx_queues;
	uint16_t tx_queues;
	uint16_t rx_descriptors; /* in: wanted, out: what the device takes */
	uint16_t tx_descriptors;
	uint16_t mtu; /* 0: the device's */
	uint8_t scatter;
	uint8_t stamps;
};

struct ws_pool {
	struct rte_mempool *mempool;
	const void *zone;
	uint8_t *base;
	uint64_t len;   /* bytes of mbufs and spare memory */
	uint64_t spare; /* offset of the spare memory */
};

struct ws_stats {
	uint64_t packets, bytes, missed, errors, no_mbuf;
};

struct ws_xstat {
	char name[WS_TEXT];
	uint64_t value;
};

int ws_port_find(const char *name);
int ws_port_name(uint16_t port, char *name);
int ws_port_device(uint16_t port, struct ws_device *device);
int ws_port_configure(uint16_t port, struct ws_config *config);
int ws_rx_setup(uint16_t port, uint16_t queue, uint16_t descriptors, int socket, const struct ws_pool *pool);
int ws_tx_setup(uint16_t port, uint16_t queue, uint16_t descriptors, int socket);
int ws_port_start(uint16_t port);
int ws_port_promiscuous(uint16_t port);
int ws_port_mtu(uint16_t port);
int ws_port_removed(uint16_t port);
void ws_port_close(uint16_t port);
int ws_port_clock(uint16_t port, uint64_t *ticks);
int ws_port_stats(uint16_t port, struct ws_stats *stats);
int ws_port_xstats(uint16_t port, struct ws_xstat *stats, unsigned int room);
int ws_pool_create(const char *name, uint32_t mbufs, uint32_t cache, uint32_t frame_bytes, uint64_t spare,
		   int socket, struct ws_pool *pool);
void ws_pool_free(struct ws_pool *pool);

/* receive.c */
enum { WS_HASH = 1, WS_VLAN = 2, WS_STAMP = 4, WS_COPY = 8 };

struct ws_frame {
	uint64_t offset; /* in the pool's memory; nothing with WS_COPY */
	uint64_t stamp;
	uint32_t len;
	uint32_t hash;
	uint16_t vlan;
	uint16_t flags;
	uint32_t unused;
};

struct ws_rx {
	const uint8_t *base;
	uint64_t len;
	uint64_t stamp_flag; /* 0: no timestamps */
	int32_t stamp_offset;
	uint16_t port;
	uint16_t queue;
};

void ws_rx_stamps(struct ws_rx *rx);
uint16_t ws_receive(const struct ws_rx *rx, struct rte_mbuf **mbufs, struct ws_frame *frames, uint16_t most);
uint32_t ws_copy(const struct rte_mbuf *mbuf, uint8_t *to, uint32_t room);
void ws_free(struct rte_mbuf **mbufs, unsigned int count);
int ws_waiting(uint16_t port, uint16_t queue);
void ws_pause(void);
unsigned int ws_send(uint16_t port, uint16_t queue, struct rte_mempool *mempool, const struct iovec *frames,
		     unsigned int count);

/* flow.c */
struct ws_flow_key {
	uint8_t src[16]; /* network order; IPv4 in the first 4 */
	uint8_t dst[16];
	uint16_t src_port; /* host order */
	uint16_t dst_port;
	uint16_t vlan; /* VLAN id, or 0xffff for untagged frames */
	uint8_t ipv6;
};

struct ws_flow {
	void *rule;
	void *counter;
};

int ws_flow_check(uint16_t port, char *why);
int ws_flow_create(uint16_t port, const struct ws_flow_key *key, struct ws_flow *flow);
int ws_flow_read(uint16_t port, const struct ws_flow *flow, uint64_t *packets, uint64_t *bytes);
int ws_flow_stop(uint16_t port, struct ws_flow *flow);
void ws_flow_forget(uint16_t port, struct ws_flow *flow);

#endif
