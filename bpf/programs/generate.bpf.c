// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Makes traffic. Run with BPF_PROG_TEST_RUN on live frames; each run of a program fills one frame and redirects it to an
// interface. User space prepares the bytes, the programs choose them, write what differs from frame to frame, and keep
// the pace.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* These are the same in src/generate.rs. */
#define FRAME_MAX 3328
#define RECORDED_FRAME_MAX 2048
#define STEPS 8
#define KINDS 5

/* Late by more than this, the frames that should have been sent are not made up for. */
#define LATE_NS 1000000

/* Places of headers in the frames, known to the verifier as constants. */
struct settings {
	__u32 flows;
	/* A flow is replaced by a new one on each Nth frame; 0: never. */
	__u32 new_every;
	/* Where the innermost IP header begins, and the outer UDP header; 0 where there is none. */
	__u32 ip;
	__u32 outer_udp;
	/* Payload of a client's and of a server's segment. */
	__u32 payload[2];
	/* Frames with data differ in their first ETH_ZLEN bytes alone, and the memory that a run is given holds the rest. */
	__u32 alike;
	/* Each round visits the flows in another order: this far from one to the next. */
	__u32 steps[STEPS];
};
const volatile struct settings SETTINGS;

struct pace {
	__u64 interval_ns; /* between bursts; 0: as fast as it goes */
	__u32 burst;
	__u32 reserved;
};

struct state {
	__u64 frames;
	__u64 bytes;
	__u64 next_ns;
	__u32 credit;
	/* Of flows. */
	__u32 slot;
	__u32 visited;
	__u32 round;
	__u32 next_flow;
	__u32 until_new;
	/* Of repeated captures. */
	__u32 at;
	__u32 copy;
};

/* A connection: how many of its frames were sent. */
struct slot {
	__u32 flow;
	__u32 frames;
};

/* A frame whose addresses, ports, numbers and checksums are zero; the sums of everything else. */
struct template {
	__u32 len;
	__u32 ip_sum;
	__u32 tcp_sum;
	__u8 bytes[FRAME_MAX];
};

/* A frame of a capture, and where its addresses are: each moves by the number of the copy. */
struct recorded {
	__u32 len;
	__u16 places[2];
	__u8 bytes[RECORDED_FRAME_MAX];
};

#define ARRAY(name, value_type)                \
	struct {                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);      \
		__type(key, __u32);                    \
		__type(value, value_type);             \
		__uint(max_entries, 1);                \
	} name SEC(".maps")

ARRAY(the_pace, struct pace);
ARRAY(the_state, struct state);
ARRAY(slots, struct slot);
ARRAY(recording, struct recorded);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct template);
	__uint(max_entries, KINDS);
} templates SEC(".maps");

/* The interface: with its index, the kernel would look it up for each frame. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
} interface SEC(".maps");

static const __u32 zero;

/* Whether a frame is due. */
static __always_inline int due(struct state *state)
{
	if (state->credit) {
		state->credit--;
		return 1;
	}
	struct pace *pace = bpf_map_lookup_elem(&the_pace, &zero);
	if (!pace)
		return 0;
	if (pace->interval_ns) {
		__u64 now = bpf_ktime_get_ns();
		if (now < state->next_ns)
			return 0;
		int late = now - state->next_ns > LATE_NS;
		state->next_ns = (late ? now : state->next_ns) + pace->interval_ns;
	}
	state->credit = pace->burst - 1;
	return 1;
}

/* Gives the frame these bytes and this length. */
static __always_inline int fill(struct xdp_md *ctx, const __u8 *bytes, __u32 len, __u32 max)
{
	int longer = (int)len - (int)(ctx->data_end - ctx->data);
	if (longer && bpf_xdp_adjust_tail(ctx, longer))
		return -1;
	if (SETTINGS.alike) {
		void *data = (void *)(long)ctx->data;
		if (data + ETH_ZLEN > (void *)(long)ctx->data_end)
			return -1;
		__builtin_memcpy(data, bytes, ETH_ZLEN);
		return 0;
	}
	if (len < ETH_ZLEN || len > max)
		return -1;
	return bpf_xdp_store_bytes(ctx, 0, (void *)bytes, len);
}

static __always_inline int send(struct state *state, __u32 len)
{
	state->frames++;
	state->bytes += len;
	return bpf_redirect_map(&interface, 0, 0);
}

/* The sum of both halves. */
static __always_inline __u32 halves(__u32 word)
{
	return (word & 0xffff) + (word >> 16);
}

static __always_inline __u16 checksum(__u32 sum)
{
	sum = halves(sum);
	return ~(sum + (sum >> 16));
}

/* The flow whose turn it is, as it was before; a new one when that is due. */
static __always_inline int visit(struct state *state, struct slot *now)
{
	struct slot *slot = bpf_map_lookup_elem(&slots, &state->slot);
	if (!slot)
		return -1;
	int fresh = !state->round;
	if (SETTINGS.new_every && !state->until_new--) {
		state->until_new = SETTINGS.new_every - 1;
		fresh = 1;
	}
	if (fresh) {
		slot->flow = state->next_flow++;
		slot->frames = 0;
	}
	*now = *slot;
	slot->frames++;

	state->slot += SETTINGS.steps[state->round % STEPS];
	if (state->slot >= SETTINGS.flows)
		state->slot -= SETTINGS.flows;
	if (++state->visited == SETTINGS.flows) {
		state->visited = 0;
		state->round++;
	}
	return 0;
}

/* What the frame of a connection says of its place in it: perf/src/traffic/connections.rs does the same. */
static __always_inline int address(struct xdp_md *ctx, struct template *template, struct slot *now, __u32 from_server)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 mixed = now->flow * 0x9e3779b1;

	if (SETTINGS.outer_udp) {
		struct udphdr *outer = data + SETTINGS.outer_udp;
		if ((void *)(outer + 1) > end)
			return -1;
		outer->source = bpf_htons(0xc000 | mixed >> 18);
	}
	struct iphdr *ip = data + SETTINGS.ip;
	struct tcphdr *tcp = (void *)(ip + 1);
	if ((void *)(tcp + 1) > end)
		return -1;

	__u32 client = bpf_htonl(0x0a000000 | (now->flow & 0xffffff));
	__u32 server = bpf_htonl(0xac100000 | mixed >> 20);
	__u16 client_port = bpf_htons(0x8000 | now->flow >> 24);
	__u16 server_port = bpf_htons(80);
	__u32 client_next = 0, server_next = 0;
	if (now->frames >= 3) {
		client_next = 1 + (now->frames - 2) / 2 * SETTINGS.payload[0];
		server_next = 1 + (now->frames - 3) / 2 * SETTINGS.payload[1];
	} else {
		client_next = now->frames > 0;
		server_next = now->frames > 1;
	}

	__u32 seq = bpf_htonl(from_server ? server_next : client_next);
	__u32 ack = bpf_htonl(from_server ? client_next : server_next);
	ip->saddr = from_server ? server : client;
	ip->daddr = from_server ? client : server;
	tcp->source = from_server ? server_port : client_port;
	tcp->dest = from_server ? client_port : server_port;
	tcp->seq = seq;
	tcp->ack_seq = ack;
	__u32 addresses = halves(client) + halves(server);
	ip->check = checksum(template->ip_sum + addresses);
	tcp->check = checksum(template->tcp_sum + addresses + client_port + server_port + halves(seq) + halves(ack));
	return 0;
}

SEC("xdp")
int wirespan_flows(struct xdp_md *ctx)
{
	struct state *state = bpf_map_lookup_elem(&the_state, &zero);
	if (!state || !due(state))
		return XDP_DROP;
	struct slot now;
	if (visit(state, &now))
		return XDP_ABORTED;
	/* SYN, SYN-ACK, ACK; then the client and the server in turn. */
	__u32 kind = now.frames < 3 ? now.frames : 4 - now.frames % 2;
	struct template *template = bpf_map_lookup_elem(&templates, &kind);
	if (!template || fill(ctx, template->bytes, template->len, FRAME_MAX))
		return XDP_ABORTED;
	if (address(ctx, template, &now, kind == 1 || kind == 4))
		return XDP_ABORTED;
	return send(state, template->len);
}

SEC("xdp")
int wirespan_repeat(struct xdp_md *ctx)
{
	struct state *state = bpf_map_lookup_elem(&the_state, &zero);
	if (!state || !due(state))
		return XDP_DROP;
	struct recorded *recorded = bpf_map_lookup_elem(&recording, &state->at);
	if (!recorded) {
		state->at = 0;
		state->copy++;
		recorded = bpf_map_lookup_elem(&recording, &zero);
		if (!recorded)
			return XDP_ABORTED;
	}
	state->at++;
	if (fill(ctx, recorded->bytes, recorded->len, RECORDED_FRAME_MAX))
		return XDP_ABORTED;
	for (int i = 0; i < 2; i++) {
		__u32 place = recorded->places[i];
		__u8 *octets = (void *)(long)ctx->data + (place & (RECORDED_FRAME_MAX - 1));
		if (!place || (void *)(octets + 2) > (void *)(long)ctx->data_end)
			continue;
		octets[0] += state->copy >> 8;
		octets[1] += state->copy;
	}
	return send(state, recorded->len);
}

SEC("xdp")
int wirespan_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
int wirespan_drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
