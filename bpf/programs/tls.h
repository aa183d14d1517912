/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What applications give to and take from TLS libraries: calls of OpenSSL and GnuTLS, seen at their entry and at each of their
 * returns. Go's are in tls_go.h.
 *
 * A call is remembered by its thread and the address of its return address, so that calls within calls, and stacks that are
 * switched within one thread, do not mix, and so that a return that several functions share is the right one's. Uprobes can be
 * preempted: nothing is kept per CPU, and events are put together in the ring. */
#ifndef WIRESPAN_TLS_H
#define WIRESPAN_TLS_H

#include "tracer_arch.h"
#include "tracer_payload.h"

#if defined(__TARGET_ARCH_x86)

#define TLS_READ 1
#define TLS_WRITE 2
/* The result says only whether it worked; the number of bytes is at an address that the caller gave. */
#define TLS_EX 4
/* The bytes are those of a file, and in no memory. */
#define TLS_FILE 8

struct tls_call_key {
	__u64 who;   /* thread; goroutine */
	__u64 where; /* stack pointer; of a Go stack, which moves, its distance from the top */
	__u32 tgid;
	__u32 unused;
};

struct tls_call {
	__u64 enter_ns;
	__u64 tls;
	__u64 buffer;
	__u64 out; /* with TLS_EX: address of the number of bytes */
	__u8 what; /* TLS_... */
	__u8 source;
	__u8 unused[2];
	__u32 events;  /* of the session when it began, where several calls may be under way at once */
	__u64 last_ns; /* when it used a socket for the last time; 0 when that is not known */
};

/* Calls that have begun. Some never return (a thread is killed, an exception unwinds them): the oldest make room. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct tls_call_key);
	__type(value, struct tls_call);
	__uint(max_entries, 16384);
} tls_calls SEC(".maps");

struct tls_session_key {
	__u64 tls;
	__u32 tgid;
	__u32 unused;
};

struct tls_session {
	__u64 conn; /* the socket that it was last seen to use; 0 for none */
	__u64 sk;
	__u32 events;
	__u32 policy; /* version of the policy that snap and budget come from, plus 1 */
	__u32 snap;
	__u32 budget;
	__u32 used; /* of the budget */
	__u8 direction;
	__u8 mute;
	__u8 frames; /* it speaks HTTP/2; see `struct conn` */
	__u8 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct tls_session_key);
	__type(value, struct tls_session);
	__uint(max_entries, 32768);
} tls_sessions SEC(".maps");

static __always_inline struct tls_session *tls_session(__u64 tls, __u32 tgid)
{
	struct tls_session_key key = {.tls = tls, .tgid = tgid};
	struct tls_session *session = bpf_map_lookup_elem(&tls_sessions, &key);

	if (!session) {
		struct tls_session fresh = {};

		bpf_map_update_elem(&tls_sessions, &key, &fresh, BPF_NOEXIST);
		session = bpf_map_lookup_elem(&tls_sessions, &key);
	}
	return session;
}

/* Sets what is wanted of a session; whether it is told of is known when its connection is. */
static __always_inline void apply_tls_policy(struct tls_session *session, struct conn *conn)
{
	__u32 zero = 0;
	struct default_policy *policy = bpf_map_lookup_elem(&default_policy, &zero);

	if (!policy || session->policy == policy->version + 1)
		return;
	if (conn)
		session->policy = policy->version + 1;
	session->snap = policy->snap;
	session->budget = policy->budget;
	session->mute = conn && is_muted(conn, policy);
}

/* The event of a call that moved bytes, but for the bytes. */
static __always_inline void begin_plain(struct event *event, struct tls_call *call, __u32 moved, struct thread *thread,
					struct tls_session *session, struct conn *conn)
{
	bool ingress = call->what & TLS_READ;
	__u8 direction = ingress ? DIRECTION_IN : DIRECTION_OUT;

	begin_event(event, EVENT_DATA, call->source, thread);
	if (conn) {
		put_conn(event, conn);
		if (is_tcp((struct sock *)session->sk))
			put_tcp(event, (struct sock *)session->sk);
		event->flags &= ~FLAG_KTLS;
	}
	if (ingress)
		event->flags |= FLAG_INGRESS;
	if (session->direction != direction) {
		if (session->direction)
			event->flags |= FLAG_FIRST_IN_DIRECTION;
		session->direction = direction;
		session->used = 0;
	}
	event->enter_ns = call->enter_ns;
	/* Its thread may not have run for a while; what answers what was sent comes behind. */
	if (!ingress && call->last_ns)
		event->exit_ns = call->last_ns;
	event->tls = call->tls;
	event->conn_event = session->events++;
	if (!ingress && call->source == SOURCE_GO_TLS)
		event->other_tid = event->conn_event - call->events;
	event->length = moved;
	event->iov_count = 1;
}

/* Puts an event into the ring, with `want` bytes at `address` behind it, for which there is `room`, a power of two less one; returns
 * how many bytes came along. */
static __always_inline __u32 submit_plain(const struct event *header, __u64 address, __u32 want, __u32 room)
{
	/* One byte less than the room, so that a mask bounds what is copied. */
	struct event *event = reserve(sizeof(*event) + room + 1);
	__u32 got = want > room ? room : want;

	if (!event)
		return 0;
	*event = *header;
	OPAQUE(got);
	got &= room;
	if (got == 0 || bpf_probe_read_user(payload_of(event), got, (void *)address)) {
		if (got)
			COUNT(unreadable, 1);
		got = 0;
		event->flags |= FLAG_NO_DATA;
	}
	if (got < event->length)
		event->flags |= FLAG_TRUNCATED;
	event->captured = got;
	event->size = sizeof(*event) + got;
	submit(event);
	return got;
}

/* How many of the bytes that a call moved are wanted. */
static __always_inline __u32 wanted_plain(struct tls_session *session, struct tls_call *call, __u32 moved)
{
	__u8 head[FRAME_HEADER + 3] = {};

	if (call->what & TLS_FILE)
		return 0;
	if (!session->frames && session->snap != 0 && moved >= FRAME_HEADER &&
	    !bpf_probe_read_user(head, FRAME_HEADER, (void *)call->buffer))
		session->frames = begins_frames(head, FRAME_HEADER);
	return wanted(session->snap, session->budget, session->used, session->frames, moved);
}

/* A socket call within a call is on the session's socket. */
static __always_inline void bind_session(struct tls_session *session, struct tls_call *call, __u64 conn, __u64 sk, __u64 ns)
{
	if (session->conn != conn)
		session->policy = 0;
	session->conn = conn;
	session->sk = sk;
	call->last_ns = ns;
}

/* Tells of a call that moved bytes. The event's header is put together before there is room for it, of one size or another, so that
 * the verifier looks at that once. */
static __noinline int tell_tls(struct thread *thread, struct tls_call *call, __u32 moved, __u64 coroutine)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32, want, got;
	struct tls_session *session = tls_session(call->tls, tgid);
	struct conn *conn = NULL;
	struct event event;

	if (!thread || !session)
		return 0;
	if (thread->last_conn && thread->last_ns >= call->enter_ns && thread->last_coroutine == coroutine) {
		bind_session(session, call, thread->last_conn, thread->last_sk, thread->last_ns);
	} else if (coroutine) {
		struct coroutine_key key = {.coroutine = coroutine, .tgid = tgid};
		struct coroutine_call *last = bpf_map_lookup_elem(&coroutine_calls, &key);

		if (last && last->ns >= call->enter_ns)
			bind_session(session, call, last->conn, last->sk, last->ns);
	}
	if (session->conn) {
		conn = find_conn(session->sk);
		if (conn && conn->id != session->conn)
			conn = NULL;
	}
	apply_tls_policy(session, conn);
	if (session->mute) {
		COUNT(muted, 1);
		return 0;
	}
	begin_plain(&event, call, moved, thread, session, conn);
	want = THROUGH(thread->want, wanted_plain(session, call, moved));
	if (want < 256)
		got = submit_plain(&event, call->buffer, want, 255);
	else if (want < 1024)
		got = submit_plain(&event, call->buffer, want, 1023);
	else if (want < 4096 || !session->frames)
		got = submit_plain(&event, call->buffer, want, 4095);
	else
		got = submit_plain(&event, call->buffer, want, 16383);
	session->used += got;
	return 0;
}

/* `out` is where the call will put the number of bytes, with TLS_EX. */
static __always_inline int tls_enter(struct pt_regs *regs, __u8 what, __u8 source, __u64 out)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct tls_call_key key = {.who = (__u32)pid_tgid, .where = regs->sp, .tgid = pid_tgid >> 32};
	struct tls_call call = {
		.enter_ns = bpf_ktime_get_boot_ns(),
		.tls = regs->di,
		.buffer = what & TLS_FILE ? 0 : regs->si,
		.out = out,
		.what = what,
		.source = source,
	};
	struct thread *thread;

	if (is_left_out(key.tgid))
		return 0;
	bpf_map_update_elem(&tls_calls, &key, &call, BPF_ANY);
	thread = this_thread();
	if (thread)
		thread->plain = key.where;
	return 0;
}

/* `pop` is what the return took from the stack already. */
static __always_inline int tls_return(struct pt_regs *regs, __u64 pop)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct tls_call_key key = {.who = (__u32)pid_tgid, .where = regs->sp - pop, .tgid = pid_tgid >> 32};
	struct tls_call *known = bpf_map_lookup_elem(&tls_calls, &key);
	struct thread *thread;
	struct tls_call call;
	__u64 out = 0;
	__s64 moved;

	if (!known)
		return 0;
	call = *known;
	bpf_map_delete_elem(&tls_calls, &key);
	thread = this_thread();
	if (thread && thread->plain == key.where)
		thread->plain = 0;
	/* An int, except with GnuTLS. */
	moved = call.source == SOURCE_GNUTLS ? (__s64)regs->ax : (__s32)regs->ax;
	if (call.what & TLS_EX) {
		if (moved != 1 || bpf_probe_read_user(&out, sizeof(out), (void *)call.out))
			return 0;
		moved = out;
	}
	if (moved > 0)
		tell_tls(thread, &call, moved, 0);
	return 0;
}

/* The session's structure may serve another one from now on. */
static __always_inline int tls_end(__u64 tls, __u8 source)
{
	struct tls_session_key key = {.tls = tls, .tgid = bpf_get_current_pid_tgid() >> 32};
	struct tls_session *session = bpf_map_lookup_elem(&tls_sessions, &key);
	struct thread *thread;
	struct event *event;

	/* Nothing was told of it. */
	if (!session)
		return 0;
	thread = this_thread();
	event = thread ? reserve_for(thread, sizeof(*event)) : NULL;
	if (event) {
		begin_event(event, EVENT_TLS_FREE, source, thread);
		event->tls = tls;
		event->conn = session->conn;
		submit(event);
	}
	bpf_map_delete_elem(&tls_sessions, &key);
	return 0;
}

SEC("uprobe")
int ssl_read(struct pt_regs *regs)
{
	return tls_enter(regs, TLS_READ, SOURCE_OPENSSL, 0);
}

SEC("uprobe")
int ssl_read_ex(struct pt_regs *regs)
{
	return tls_enter(regs, TLS_READ | TLS_EX, SOURCE_OPENSSL, regs->cx);
}

SEC("uprobe")
int ssl_write(struct pt_regs *regs)
{
	return tls_enter(regs, TLS_WRITE, SOURCE_OPENSSL, 0);
}

SEC("uprobe")
int ssl_write_ex(struct pt_regs *regs)
{
	return tls_enter(regs, TLS_WRITE | TLS_EX, SOURCE_OPENSSL, regs->cx);
}

/* With flags before the number of bytes. */
SEC("uprobe")
int ssl_write_ex2(struct pt_regs *regs)
{
	return tls_enter(regs, TLS_WRITE | TLS_EX, SOURCE_OPENSSL, regs->r8);
}

/* For the kernel to encrypt. */
SEC("uprobe")
int ssl_sendfile(struct pt_regs *regs)
{
	return tls_enter(regs, TLS_WRITE | TLS_FILE, SOURCE_OPENSSL, 0);
}

SEC("uprobe")
int ssl_free(struct pt_regs *regs)
{
	return tls_end(regs->di, SOURCE_OPENSSL);
}

SEC("uprobe")
int gnutls_recv(struct pt_regs *regs)
{
	return tls_enter(regs, TLS_READ, SOURCE_GNUTLS, 0);
}

SEC("uprobe")
int gnutls_send(struct pt_regs *regs)
{
	return tls_enter(regs, TLS_WRITE, SOURCE_GNUTLS, 0);
}

SEC("uprobe")
int gnutls_deinit(struct pt_regs *regs)
{
	return tls_end(regs->di, SOURCE_GNUTLS);
}

/* On a return instruction. */
SEC("uprobe")
int tls_at_return(struct pt_regs *regs)
{
	return tls_return(regs, 0);
}

/* As a return probe. */
SEC("uretprobe")
int tls_after_return(struct pt_regs *regs)
{
	return tls_return(regs, 8);
}

#endif

#endif
