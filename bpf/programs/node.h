/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Node.js: what its loop is at. Its HTTP/2 hands over frame by frame what one read brought, and what JavaScript does for each is
 * done before the next; but what it asks others is sent when all are done, so that asking is told by itself. */
#ifndef WIRESPAN_NODE_H
#define WIRESPAN_NODE_H

#include "tracer_event.h"

/* Timers are due: what they do is a turn of its own, and nothing that came before in the loop is the reason for it. */
SEC("uprobe")
int node_timers(struct pt_regs *regs)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct thread *thread = find_thread((__u32)id);

	if (!thread || is_left_out(id >> 32))
		return 0;
	thread->turn++;
	thread->wait = WAIT_TIMERS;
	reads_nothing(thread);
	return 0;
}

#if defined(__TARGET_ARCH_x86)

/* An Http2Session, by its address. */
struct http2_session {
	__u64 address;
	__u32 tgid;
	__u32 unused;
};

/* Its connection. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct http2_session);
	__type(value, __u64);
	__uint(max_entries, 16384);
} http2_sessions SEC(".maps");

/* nghttp2_headers_category of what is no response to it: a request of this end. */
#define HEADERS_OF_OWN 3
/* Where a nghttp2_frame has its stream, behind the length. */
#define FRAME_STREAM 8

/* The thread hands over what came for a stream. */
static __always_inline int is_at(__u64 address, __u32 stream)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct http2_session session = {.address = address, .tgid = id >> 32};
	struct thread *thread = find_thread((__u32)id);
	__u64 *conn;

	if (!thread || !thread->read_conn)
		return 0;
	thread->stream = stream;
	conn = bpf_map_lookup_elem(&http2_sessions, &session);
	if (!conn || *conn != thread->read_conn)
		bpf_map_update_elem(&http2_sessions, &session, &thread->read_conn, BPF_ANY);
	return 0;
}

/* Http2Session::OnFrameReceive(session of nghttp2, frame, session) */
SEC("uprobe")
int node_frame(struct pt_regs *regs)
{
	__u32 stream = 0;

	bpf_probe_read_user(&stream, sizeof(stream), (void *)(regs->si + FRAME_STREAM));
	return is_at(regs->dx, stream);
}

/* Http2Session::OnDataChunkReceived(session of nghttp2, flags, stream, bytes, how many, session) */
SEC("uprobe")
int node_chunk(struct pt_regs *regs)
{
	return is_at(regs->r9, regs->dx);
}

/* Http2Session::SendPendingData: all that came is done. */
SEC("uprobe")
int node_sends(struct pt_regs *regs)
{
	struct thread *thread = find_thread((__u32)bpf_get_current_pid_tgid());

	if (thread)
		thread->stream = 0;
	return 0;
}

/* Http2Stream(this, session, object, stream, category, ...) */
SEC("uprobe")
int node_stream(struct pt_regs *regs)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct http2_session session = {.address = regs->si, .tgid = id >> 32};
	struct thread *thread;
	struct event *event;
	__u64 *conn;

	if ((__u32)regs->r8 != HEADERS_OF_OWN || is_left_out(id >> 32))
		return 0;
	conn = bpf_map_lookup_elem(&http2_sessions, &session);
	thread = conn ? find_thread((__u32)id) : NULL;
	event = thread ? reserve(sizeof(*event)) : NULL;
	if (!event)
		return 0;
	begin_event(event, EVENT_STREAM, SOURCE_NODE, thread);
	event->conn = *conn;
	event->tls = (__u32)regs->cx;
	event->other_tid = thread->stream;
	submit(event);
	return 0;
}

#endif

#endif
