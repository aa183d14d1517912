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

/* Its connection; CONN_MUTE for one whose data is not told, SESSION_NEW before anything was sent. No entry: nothing came on it yet. */
#define SESSION_NEW (CONN_MUTE - 1)
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

/* Tells what the thread does with a session. */
static __always_inline void tell_session(struct thread *thread, __u64 address, __u64 conn, __u32 stream)
{
	struct event *event = reserve_for(thread, sizeof(*event));

	if (!event)
		return;
	begin_event(event, EVENT_STREAM, SOURCE_NODE, thread);
	event->conn = conn;
	event->tls = address;
	event->length = stream;
	event->other_tid = thread->stream;
	submit(event);
}

/* The thread hands over what came for a stream. */
static __always_inline int is_at(__u64 address, __u32 stream)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct http2_session session = {.address = address, .tgid = id >> 32};
	struct thread *thread = find_thread((__u32)id);
	__u64 *conn;

	if (!thread || !thread->read_conn)
		return 0;
	thread->stream = thread->read_conn == CONN_MUTE ? 0 : stream;
	conn = bpf_map_lookup_elem(&http2_sessions, &session);
	if (conn && *conn == thread->read_conn)
		return 0;
	bpf_map_update_elem(&http2_sessions, &session, &thread->read_conn, BPF_ANY);
	if (thread->read_conn != CONN_MUTE && !is_left_out(id >> 32))
		tell_session(thread, address, thread->read_conn, 0);
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

/* Http2Session(this, ...), when the connection is open. Requests that waited for that are begun now, whatever the thread was at:
 * nothing is told of those. Another session may have been at this address. */
SEC("uprobe")
int node_session(struct pt_regs *regs)
{
	struct http2_session session = {.address = regs->di, .tgid = bpf_get_current_pid_tgid() >> 32};
	__u64 conn = SESSION_NEW;

	bpf_map_update_elem(&http2_sessions, &session, &conn, BPF_ANY);
	return 0;
}

/* The thread asks for a stream, or with 0 sends what was asked for. Of a session that nothing came on yet, as before the first
 * response or when the tracer came later, only what is sent then tells the connection. */
static __always_inline int asks(__u64 address, __u32 stream)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct http2_session session = {.address = address, .tgid = id >> 32};
	struct thread *thread = find_thread((__u32)id);
	__u64 *conn;

	if (!thread || is_left_out(id >> 32))
		return 0;
	if (!stream)
		thread->stream = 0;
	conn = bpf_map_lookup_elem(&http2_sessions, &session);
	if (conn && !stream && *conn == SESSION_NEW)
		bpf_map_delete_elem(&http2_sessions, &session);
	if (!conn || (stream && *conn < SESSION_NEW))
		tell_session(thread, address, conn ? *conn : 0, stream);
	return 0;
}

/* Http2Session::SendPendingData(this): all that came is done. */
SEC("uprobe")
int node_sends(struct pt_regs *regs)
{
	return asks(regs->di, 0);
}

/* Http2Stream(this, session, object, stream, category, ...) */
SEC("uprobe")
int node_stream(struct pt_regs *regs)
{
	return (__u32)regs->r8 == HEADERS_OF_OWN ? asks(regs->si, regs->cx) : 0;
}

#endif

#endif
