/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* google.golang.org/grpc: which goroutine asks for what, and which answers what. Of each connection one writes for all others, and
 * one reads for them. */
#ifndef WIRESPAN_GRPC_H
#define WIRESPAN_GRPC_H

#include "tls_go.h"

#if defined(__TARGET_ARCH_x86)

/* A request that waits in a queue for the goroutine that writes for all: a headerFrame of google.golang.org/grpc. */
struct go_frame_key {
	__u64 frame;
	__u32 tgid;
	__u32 unused;
};

struct go_queued {
	__u64 goid; /* who put it there */
	__u64 ns;   /* when */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct go_frame_key);
	__type(value, struct go_queued);
	__uint(max_entries, 8192);
} go_frames SEC(".maps");

/* On the instruction of (*http2Client).NewStream that calls (*controlBuffer).executeAndPut(check, frame). It is called again when
 * there were too many streams. */
SEC("uprobe")
int go_grpc_put(struct pt_regs *regs)
{
	struct go_frame_key key = {.frame = regs->di, .tgid = bpf_get_current_pid_tgid() >> 32};
	struct go_queued queued = {.goid = running_goid(regs), .ns = bpf_ktime_get_boot_ns()};

	if (queued.goid)
		bpf_map_update_elem(&go_frames, &key, &queued, BPF_ANY);
	return 0;
}

/* Tells at which stream a goroutine is. */
static __always_inline void tell_stream(struct thread *thread, __u64 goid, __u64 other, __u32 stream, __u64 ns, __u16 flags)
{
	struct event *event = reserve_for(thread, sizeof(*event));

	if (!event)
		return;
	begin_event(event, EVENT_STREAM, SOURCE_GO, thread);
	event->enter_ns = event->exit_ns = ns;
	event->flags |= flags;
	event->coroutine = goid;
	event->tls = other;
	event->length = stream;
	submit(event);
}

/* Where an outStream has its list of items, and an item what it is. */
#define STREAM_ITEMS 16
#define ITEM_POINTER 8

/* (*loopyWriter).originateStream(stream[, frame]): the frame is taken from the queue, and has its number as first field. Older
 * versions hand it over as the first item of the stream. */
SEC("uprobe")
int go_grpc_stream(struct pt_regs *regs)
{
	struct go_frame_key key = {.frame = regs->cx, .tgid = bpf_get_current_pid_tgid() >> 32};
	__u64 items = 0, item = 0;
	struct go_queued *queued;
	struct thread *thread;
	__u32 stream = 0;
	__u64 writer;

	bpf_probe_read_user(&items, sizeof(items), (void *)(regs->bx + STREAM_ITEMS));
	bpf_probe_read_user(&item, sizeof(item), (void *)items);
	if (item)
		bpf_probe_read_user(&key.frame, sizeof(key.frame), (void *)(item + ITEM_POINTER));
	queued = bpf_map_lookup_elem(&go_frames, &key);
	writer = queued ? running_goid(regs) : 0;
	thread = writer ? this_thread() : NULL;
	if (!thread || bpf_probe_read_user(&stream, sizeof(stream), (void *)key.frame) || !stream)
		return 0;
	tell_stream(thread, queued->goid, writer, stream, queued->ns, 0);
	bpf_map_delete_elem(&go_frames, &key);
	return 0;
}

/* Tells that this goroutine answers a stream of a connection, or with 0 that it reads that. */
static __always_inline int serves(struct pt_regs *regs, __u64 transport, __u32 stream)
{
	__u64 goid = running_goid(regs);
	struct thread *thread = goid ? this_thread() : NULL;

	if (thread)
		tell_stream(thread, goid, transport, stream, bpf_ktime_get_boot_ns(), FLAG_INGRESS);
	return 0;
}

/* (*http2Server).HandleStreams(...): it returns when the connection is over. */
SEC("uprobe")
int go_grpc_reads(struct pt_regs *regs)
{
	return serves(regs, regs->ax, 0);
}

/* (*Server).handleStream(transport, stream, ...), transport being an interface. A stream has its number as first field; in newer
 * versions it is one of a server, whose first field points to that. Where net/http has the connection, it is 0. */
SEC("uprobe")
int go_grpc_handles(struct pt_regs *regs)
{
	__u64 first = 0;

	bpf_probe_read_user(&first, sizeof(first), (void *)regs->di);
	if (first >> 32)
		bpf_probe_read_user(&first, sizeof(first), (void *)first);
	return (__u32)first ? serves(regs, regs->cx, first) : 0;
}

#endif

#endif
