/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* System calls that move bytes: remembered at their start when they are on a socket, told at their end, when the kernel has
 * just used the bytes and they are in memory. */
#ifndef WIRESPAN_TRACER_CALLS_H
#define WIRESPAN_TRACER_CALLS_H

#include "tracer_arch.h"
#include "tracer_payload.h"

static __always_inline bool is_ingress(__u8 call)
{
	return call >= CALL_READ && call <= CALL_RECVMMSG;
}

/* Remembers a call on a socket. The flags of a receive say whether it takes the bytes out of the socket. */
static __always_inline void remember(struct pt_regs *regs, struct task_struct *task, __u16 nr, __u8 call)
{
	struct file *file;
	struct thread *thread;
	__u64 sk, msg_flags = 0, name = 0;
	int fd = ARG0(regs);
	__u8 flags = is_ingress(call) ? CALL_INGRESS : 0;
	__u16 protocol;

	if (call == CALL_SPLICE) {
		/* The sending end first: a splice between two sockets is not possible. */
		fd = ARG2(regs);
		sk = socket_of(task, fd, &file);
		if (!sk) {
			fd = ARG0(regs);
			sk = socket_of(task, fd, &file);
			flags = CALL_INGRESS;
		}
	} else {
		sk = socket_of(task, fd, &file);
	}
	if (!sk)
		return;

	if (call == CALL_RECVFROM || call == CALL_SENDTO) {
		msg_flags = ARG3(regs);
		name = ARG4(regs);
	} else if (call == CALL_RECVMSG || call == CALL_SENDMSG) {
		msg_flags = ARG2(regs);
	} else if (call == CALL_RECVMMSG || call == CALL_SENDMMSG) {
		msg_flags = ARG3(regs);
	}
	if (flags & CALL_INGRESS) {
		if (msg_flags & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB)) {
			COUNT(peeked, 1);
			return;
		}
		if (msg_flags & MSG_TRUNC)
			flags |= CALL_DISCARD;
	} else if (msg_flags & MSG_MORE) {
		flags |= CALL_MORE;
	}

	thread = thread_of(task);
	if (!thread)
		return;
	protocol = SOCK(sk, sk_protocol);
	if (protocol == IPPROTO_TCP) {
		flags |= CALL_TCP;
		thread->write_seq = TCP(sk, write_seq);
		thread->copied_seq = TCP(sk, copied_seq);
	} else if (protocol == IPPROTO_MPTCP) {
		flags |= CALL_SEQ_UNKNOWN;
	}
	thread->sk = sk;
	fetch_conn(*(volatile __u64 *)&thread->sk);
	thread->fd = fd;
	thread->nr = nr;
	thread->flags = flags;
	thread->buffer = ARG1(regs);
	thread->count = ARG2(regs);
	thread->name = name;
	thread->armed = 1;
	thread->call = call;
	/* A clock costs as much as all of the above: each event has one time. */
	if (!(flags & CALL_INGRESS))
		thread->enter_ns = bpf_ktime_get_boot_ns();
}

/* A datagram socket without a fixed peer says in each call who that is. */
static __always_inline void put_name(struct event *event, __u64 address)
{
	struct sockaddr_any name = {};

	if (!address || bpf_probe_read_user(&name, 16, (void *)address))
		return;
	if (name.family == AF_INET) {
		set_address4(event->remote, name.address4);
	} else if (name.family == AF_INET6) {
		if (bpf_probe_read_user(&name, sizeof(name), (void *)address))
			return;
		copy_address(event->remote, name.address6);
	} else {
		return;
	}
	event->remote_port = bpf_ntohs(name.port);
	if (event->family == AF_INET6)
		fold_mapped(&event->family, event->local, event->remote);
}

/* The sequence number of the message's first byte, from readings before and after the call. */
static __always_inline void put_seq(struct event *event, struct thread *thread, struct sock *sk, struct message *message)
{
	__u32 before, after;

	if (thread->flags & CALL_INGRESS) {
		before = thread->copied_seq;
		after = TCP(sk, copied_seq);
		event->opposite_seq = TCP(sk, write_seq);
	} else {
		before = thread->write_seq;
		after = TCP(sk, write_seq);
		event->opposite_seq = thread->copied_seq;
	}
	event->tcp_seq = before + message->before;
	if (after - before != message->moved) {
		event->flags |= FLAG_SEQ_AMBIGUOUS;
		event->tcp_seq = after - message->moved + message->before;
	}
}

/* Copies as much of a message as is wanted of its connection; returns how many bytes. */
static __always_inline __u32 copy_message(struct conn *conn, struct thread *thread, struct scratch *scratch)
{
	const struct message *message = &scratch->message;
	__u32 want = wanted(conn->snap, conn->budget, conn->used, conn->frames, message->length), got;

	want = THROUGH(scratch->want, want);
	if (want > CAPTURE_MAX)
		want = CAPTURE_MAX;
	if (!message->buffer || thread->flags & CALL_DISCARD)
		return 0;
	if (message->is_iov)
		got = copy_iov(want);
	else
		got = copy_bytes(scratch->payload, message->buffer + message->from, want);
	if (got == 0 && want != 0)
		COUNT(unreadable, 1);
	return THROUGH(scratch->got, got);
}

/* Tells what a UNIX socket is bound to: the end that was accepted has the address of the socket that listened, and one that
 * connected has as a rule none. A global function, so that the verifier looks at it once; a socket comes here once. */
__noinline int tell_name(__u64 sk, __u64 ns)
{
	struct conn *conn = find_conn(sk);
	struct thread *thread = this_thread();
	__u64 address = (__u64)LOAD(unix_sock, sk, addr), peer = (__u64)LOAD(unix_sock, sk, peer);
	bool is_other = peer && (!address || (conn && conn->role == FLAG_CLIENT));
	struct event *event;
	__u32 len = 0;

	if (!conn || !thread)
		return 0;
	if (is_other)
		address = (__u64)LOAD(unix_sock, peer, addr);
	if (address)
		len = LOAD(unix_address, address, len) - sizeof(__u16);
	OPAQUE(len);
	if (len == 0 || len > UNIX_NAME_MAX) {
		conn->named = 1;
		return 0;
	}
	event = reserve_for(thread, CLASS_256);
	if (!event)
		return 0;
	begin_event(event, EVENT_NAME, SOURCE_SYSCALL, thread);
	put_conn(event, conn);
	event->enter_ns = event->exit_ns = ns;
	if (is_other)
		event->flags |= FLAG_INGRESS;
	address += bpf_core_field_offset(struct unix_address, name) + sizeof(__u16);
	if (!bpf_probe_read_kernel(payload_of(event), len, (void *)address)) {
		event->captured = len;
		event->length = len;
		event->size += len;
	}
	conn->named = 1;
	submit(event);
	return 0;
}

/* Tells the name of a UNIX socket, when that was not told: at `ns`, when the connection is told of. */
static __always_inline void name_conn(struct conn *conn, __u64 sk, __u64 ns)
{
	if (conn->family == AF_UNIX && !conn->named)
		tell_name(sk, ns);
}

/* A part of a message was told of that filled its event: more of it is wanted in another. */
static __always_inline bool goes_on(struct conn *conn, struct thread *thread, __u32 got)
{
	return conn->frames && got == CAPTURE_MAX && thread->call != CALL_RECVMMSG && thread->call != CALL_SENDMMSG &&
	       conn->used < FRAMES_BUDGET;
}

/* Tells of the message in the scratch, as far as one event holds what is wanted of it; returns how many bytes are left to tell of.
 * Reads what is volatile first, copies the payload last. */
static __always_inline __u32 tell(struct task_struct *task, struct thread *thread, struct scratch *scratch)
{
	struct message *message = &scratch->message;
	bool ingress = thread->flags & CALL_INGRESS;
	__u8 direction = ingress ? DIRECTION_IN : DIRECTION_OUT;
	__u32 tgid = TASK(task, tgid), got;
	struct sock *sk = (struct sock *)thread->sk;
	struct conn *conn = conn_of(thread->sk);
	struct event *event;
	__u64 ns;

	if (ingress)
		reads_nothing(thread);
	if (!conn)
		return 0;
	event = &scratch->event;
	refresh_conn(conn, sk);
	if (conn->family != AF_INET && conn->family != AF_INET6 && conn->family != AF_UNIX)
		return 0;
	apply_policy(conn);
	conn->tgid = tgid;
	if (conn->mute) {
		if (ingress)
			thread->read_conn = CONN_MUTE;
		COUNT(muted, 1);
		return 0;
	}

	ns = ingress ? bpf_ktime_get_boot_ns() : thread->enter_ns;
	name_conn(conn, thread->sk, ns);
	COUNT(made, 1);
	begin_event_of(event, EVENT_DATA, SOURCE_SYSCALL, task, thread, ns);
	put_conn(event, conn);
	conn->events++;
	conn->told = 1;
	conn->tid = event->tid;
	conn->process_start_ns = event->process_start_ns;
	if (ingress)
		event->flags |= FLAG_INGRESS;
	if (thread->flags & CALL_MORE)
		event->flags |= FLAG_MORE;
	if (conn->direction != direction) {
		if (conn->direction)
			event->flags |= FLAG_FIRST_IN_DIRECTION;
		conn->direction = direction;
		conn->used = 0;
	}
	event->fd = thread->fd;
	event->other_tid = thread->stream;
	event->syscall = thread->call;
	event->length = message->length;
	event->iov_count = message->is_iov ? message->count : 1;
	if (thread->flags & CALL_TCP) {
		put_seq(event, thread, sk, message);
		put_tcp(event, sk);
	} else if (thread->flags & CALL_SEQ_UNKNOWN) {
		event->flags |= FLAG_SEQ_AMBIGUOUS;
	}
	if (conn->family != AF_UNIX && conn->remote_port == 0)
		put_name(event, message->name);
	thread->last_conn = conn->id;
	thread->last_sk = thread->sk;
	thread->last_ns = event->exit_ns;
	thread->last_coroutine = event->coroutine;
	thread->last_fd = thread->fd;
	thread->last_seq = event->tcp_seq;
	thread->last_length = message->length;
	thread->last_ingress = ingress;
	if (ingress)
		thread->read_conn = conn->id;
	if (event->coroutine && *(volatile __u32 *)&coroutine_calls_wanted)
		remember_coroutine_call(event->coroutine, tgid, conn->id, thread->sk, event->exit_ns);

	/* What a TLS library leaves to the kernel to encrypt is told of where it was given to the library. */
	got = event->flags & FLAG_KTLS && thread->plain ? 0 : copy_message(conn, thread, scratch);
	/* What begins as frames do is copied anew, as far as is wanted of them. */
	if (!conn->frames && begins_frames(scratch->payload, got)) {
		conn->frames = 1;
		if (got < message->length)
			got = copy_message(conn, thread, scratch);
	}
	conn->used += got;
	event->captured = got;
	event->size = sizeof(*event) + got;
	if (got == 0)
		event->flags |= FLAG_NO_DATA;
	if (goes_on(conn, thread, got) && got < message->length)
		event->length = got;
	else if (got < message->length)
		event->flags |= FLAG_TRUNCATED;
	OPAQUE(got);
	if (got > CAPTURE_MAX)
		return 0;
	if (bpf_ringbuf_output(&events, event, sizeof(*event) + got, wakeup(event->thread_event)))
		COUNT(ring_full, 1);
	return message->length - event->length;
}

/* Tells of the message in the scratch. A global function, so that the verifier looks at it once and not for each message. */
__noinline int tell_message(__u32 tid)
{
	struct thread *thread = find_thread(tid);
	struct scratch *scratch = scratch_of_cpu();

	return thread && scratch ? tell(this_task(), thread, scratch) : 0;
}

/* Messages of datagram sockets, as a rule; those of a stream are counted from its first byte. */
static __always_inline void tell_mmsg(struct thread *thread, struct scratch *scratch, __u32 tid, __u32 messages)
{
	struct message *message = &scratch->message;
	struct user_mmsghdr *header = &scratch->header;

	message->before = 0;
	message->from = 0;
	message->is_iov = true;
	for (__u32 i = 0; i < MESSAGES_MAX; i++) {
		if (i >= messages)
			return;
		if (bpf_probe_read_user(header, sizeof(*header), (void *)(thread->buffer + i * sizeof(*header)))) {
			COUNT(unreadable, 1);
			return;
		}
		message->buffer = header->header.iov;
		message->count = header->header.iov_count;
		message->name = header->header.name;
		message->length = header->length;
		message->moved = message->before + header->length;
		tell_message(tid);
		message->before += header->length;
	}
	if (messages > MESSAGES_MAX)
		COUNT(messages_over, messages - MESSAGES_MAX);
}

/* The call that `thread` was in has moved `result` bytes, or messages. */
static __always_inline void tell_data(struct task_struct *task, struct thread *thread, __u32 tid, long result)
{
	struct scratch *scratch = scratch_of_cpu();
	struct message *message;
	__u32 left;

	if (result <= 0 || !scratch)
		return;
	if (thread->call == CALL_RECVMMSG || thread->call == CALL_SENDMMSG) {
		tell_mmsg(thread, scratch, tid, result);
		return;
	}
	message = &scratch->message;
	__builtin_memset(message, 0, sizeof(*message));
	message->length = message->moved = result;
	if (thread->call == CALL_RECVMSG || thread->call == CALL_SENDMSG) {
		struct user_msghdr *header = &scratch->header.header;

		if (bpf_probe_read_user(header, sizeof(*header), (void *)thread->buffer))
			COUNT(unreadable, 1);
		message->buffer = header->iov;
		message->count = header->iov_count;
		message->name = header->name;
		message->is_iov = true;
	} else if (thread->call != CALL_SENDFILE && thread->call != CALL_SPLICE) {
		message->buffer = thread->buffer;
		message->count = thread->count;
		message->name = thread->name;
		message->is_iov = thread->call == CALL_READV || thread->call == CALL_WRITEV;
	}
	left = tell(task, thread, scratch);
	for (int i = 0; i < FRAMES_PARTS && left; i++) {
		message->before = message->from = message->moved - left;
		message->length = left;
		left = tell_message(tid);
	}
}

/* Nothing was there to read. Clients look so at connections that they take from a pool, or put there; who reads all that comes
 * looks at what it has read itself. */
static __always_inline void tell_look(struct thread *thread, __u32 tid)
{
	struct conn *conn = find_conn(thread->sk);
	struct event *event;

	if (!conn || conn->role == FLAG_SERVER || conn->direction != DIRECTION_IN || conn->tid == tid || conn->mute)
		return;
	event = reserve(sizeof(*event));
	if (!event)
		return;
	begin_event(event, EVENT_LOOK, SOURCE_SYSCALL, thread);
	put_conn(event, conn);
	event->fd = thread->fd;
	event->syscall = thread->call;
	submit(event);
}

#endif
