/* What is done per burst and per frame. */
#include <string.h>

#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mbuf_dyn.h>
#include <rte_pause.h>
#include <rte_prefetch.h>

#include "shim.h"

/* A burst that is shorter says that the queue is empty; vector drivers give no more at once. */
#define BURST 32
/* Headers of mbufs are read so many ahead. */
#define AHEAD 4

/* A driver that stamps frames has registered the field when its port is started. */
void ws_rx_stamps(struct ws_rx *rx)
{
	int flag = rte_mbuf_dynflag_lookup(RTE_MBUF_DYNFLAG_RX_TIMESTAMP_NAME, NULL);
	rx->stamp_offset = rte_mbuf_dynfield_lookup(RTE_MBUF_DYNFIELD_TIMESTAMP_NAME, NULL);
	rx->stamp_flag = flag < 0 || rx->stamp_offset < 0 ? 0 : RTE_BIT64(flag);
}

static void describe(const struct ws_rx *rx, struct rte_mbuf *mbuf, struct ws_frame *frame)
{
	uint64_t known = mbuf->ol_flags;
	uint64_t offset = rte_pktmbuf_mtod(mbuf, const uint8_t *) - rx->base;
	frame->len = mbuf->pkt_len;
	frame->flags = 0;
	if (known & RTE_MBUF_F_RX_RSS_HASH) {
		frame->flags |= WS_HASH;
		frame->hash = mbuf->hash.rss;
	}
	if (known & RTE_MBUF_F_RX_VLAN_STRIPPED) {
		frame->flags |= WS_VLAN;
		frame->vlan = mbuf->vlan_tci;
	}
	if (known & rx->stamp_flag) {
		frame->flags |= WS_STAMP;
		frame->stamp = *RTE_MBUF_DYNFIELD(mbuf, rx->stamp_offset, const uint64_t *);
	}
	/* In several mbufs, or in another pool's memory: net_ring hands on what it was given. */
	if (mbuf->nb_segs != 1 || offset >= rx->len || frame->len > rx->len - offset)
		frame->flags |= WS_COPY;
	frame->offset = offset;
}

uint16_t ws_receive(const struct ws_rx *rx, struct rte_mbuf **mbufs, struct ws_frame *frames, uint16_t most)
{
	uint16_t count = 0, got;
	do {
		got = rte_eth_rx_burst(rx->port, rx->queue, mbufs + count, most - count);
		count += got;
	} while (got >= BURST && count < most);
	for (uint16_t at = 0; at < count; at++) {
		if (at + AHEAD < count)
			rte_prefetch0(mbufs[at + AHEAD]);
		describe(rx, mbufs[at], &frames[at]);
	}
	return count;
}

uint32_t ws_copy(const struct rte_mbuf *mbuf, uint8_t *to, uint32_t room)
{
	uint32_t copied = 0;
	for (; mbuf != NULL && copied < room; mbuf = mbuf->next) {
		uint32_t len = RTE_MIN((uint32_t)mbuf->data_len, room - copied);
		memcpy(to + copied, rte_pktmbuf_mtod(mbuf, const uint8_t *), len);
		copied += len;
	}
	return copied;
}

void ws_free(struct rte_mbuf **mbufs, unsigned int count)
{
	rte_pktmbuf_free_bulk(mbufs, count);
}

int ws_waiting(uint16_t port, uint16_t queue)
{
	return rte_eth_rx_queue_count(port, queue);
}

void ws_pause(void)
{
	rte_pause();
}

unsigned int ws_send(uint16_t port, uint16_t queue, struct rte_mempool *mempool, const struct iovec *frames,
		     unsigned int count)
{
	struct rte_mbuf *mbufs[BURST];
	unsigned int sent = 0;
	while (sent < count) {
		unsigned int wanted = RTE_MIN(count - sent, (unsigned int)BURST), filled = 0, gone = 0;
		if (rte_pktmbuf_alloc_bulk(mempool, mbufs, wanted) != 0)
			break;
		for (; filled < wanted; filled++) {
			const struct iovec *frame = &frames[sent + filled];
			char *to = frame->iov_len > UINT16_MAX ? NULL : rte_pktmbuf_append(mbufs[filled], frame->iov_len);
			if (to == NULL)
				break;
			memcpy(to, frame->iov_base, frame->iov_len);
		}
		if (filled > 0)
			gone = rte_eth_tx_burst(port, queue, mbufs, filled);
		rte_pktmbuf_free_bulk(mbufs + gone, wanted - gone);
		sent += gone;
		if (gone < wanted)
			break;
	}
	return sent;
}
