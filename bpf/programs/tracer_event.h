/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Events: who, which socket, and the way into the ring.
 *
 * For programs of uprobes, which can be interrupted by each other on one CPU and so have no scratch:
 *
 *     struct thread *thread = this_thread();      the thread with its last socket call (thread->last_...), made if need be
 *     struct event *event = reserve_for(thread, CLASS_1K);    room for a header and bytes behind it: CLASS_256, ...
 *     begin_event(event, EVENT_DATA, SOURCE_OPENSSL, thread);    all fields set; who, cgroup, counters; times are now
 *     conn = find_conn(thread->last_sk);
 *     put_conn(event, conn);                      the socket's id and addresses; put_tcp(event, sk) for what TCP knows
 *     bpf_probe_read_user(payload_of(event), n, address); event->captured = n; event->size = sizeof(*event) + n;
 *     submit(event);
 *
 * Room that is not filled stays in the ring behind the event: a reader goes by `captured`. */
#ifndef WIRESPAN_TRACER_EVENT_H
#define WIRESPAN_TRACER_EVENT_H

#include "go.h"
#include "tracer_socket.h"

#define CLASS_256 (sizeof(struct event) + 256)
#define CLASS_1K (sizeof(struct event) + 1024)
#define CLASS_4K (sizeof(struct event) + 4096)
#define CLASS_16K (sizeof(struct event) + 16384)

static __always_inline bool is_left_out(__u32 tgid)
{
	return tgid == settings.left_out || (settings.only && tgid != settings.only);
}

static __always_inline __u64 process_start_ns(struct task_struct *task)
{
	return HAS_TASK_BTF ? UNTRUSTED(task)->group_leader->start_boottime : BPF_CORE_READ(task, group_leader, start_boottime);
}

/* Id of the cgroup v2, as bpf_get_current_cgroup_id says. */
static __always_inline __u64 cgroup_of(struct task_struct *task)
{
	return HAS_TASK_BTF ? UNTRUSTED(task)->cgroups->dfl_cgrp->kn->id :
			      BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
}

/* Those of neighbours, which run on other CPUs, are apart in memory. */
static __always_inline struct thread *place_of(__u32 tid)
{
	__u32 place = tid * 33 & (settings.places - 1);

	return bpf_map_lookup_elem(&places, &place);
}

static __noinline struct thread *find_in_crowd(__u32 tid)
{
	return bpf_map_lookup_elem(&crowd, &tid);
}

/* What is remembered of a thread, or NULL. */
static __always_inline struct thread *find_thread(__u32 tid)
{
	struct thread *place = place_of(tid);

	if (place && place->tid == tid)
		return place;
	return *(volatile __u32 *)&crowded ? find_in_crowd(tid) : NULL;
}

/* Takes the place when it is nobody's. */
static __always_inline bool take_place(struct thread *place, __u32 tid)
{
	if (HAS_ATOMICS)
		return __sync_val_compare_and_swap(&place->tid, 0, tid) == 0;
	if (place->tid)
		return false;
	place->tid = tid;
	return true;
}

/* Not on the stack, which is short. */
static const struct thread no_thread;

/* Not inlined: it is on nobody's fast path. */
static __noinline struct thread *new_thread(__u32 tid, __u64 start_ns)
{
	struct thread *made = place_of(tid);

	if (made && take_place(made, tid)) {
		made->process_start_ns = start_ns;
		return made;
	}
	if (!bpf_map_update_elem(&crowd, &tid, &no_thread, BPF_NOEXIST))
		__sync_fetch_and_add(&crowded, 1);
	made = bpf_map_lookup_elem(&crowd, &tid);
	if (made)
		made->process_start_ns = start_ns;
	else
		COUNT(threads_full, 1);
	return made;
}

/* The thread is no more. */
static __always_inline void forget_thread(__u32 tid)
{
	struct thread *place = place_of(tid);

	if (place && place->tid == tid) {
		__u32 *last = &place->tid;

		__builtin_memset(last + 1, 0, sizeof(*place) - sizeof(*last));
		/* Only then may another have it. */
		*(volatile __u32 *)last = 0;
	}
	if (*(volatile __u32 *)&crowded && !bpf_map_delete_elem(&crowd, &tid))
		__sync_fetch_and_add(&crowded, -1);
}

/* What is remembered of a thread, which is the current one. */
static __always_inline struct thread *thread_of(struct task_struct *task)
{
	__u32 tid = TASK(task, pid);
	struct thread *thread = find_thread(tid);

	return thread ? thread : new_thread(tid, process_start_ns(task));
}

static __always_inline struct thread *this_thread(void)
{
	return thread_of(this_task());
}

/* What the thread does now is for nothing that it received last. */
static __always_inline void reads_nothing(struct thread *thread)
{
	thread->read_conn = 0;
	thread->stream = 0;
}

/* Sets all fields; those about a socket to zero. Without a task, who it is stays open. */
static __always_inline void fill_event(struct event *event, __u8 kind, __u8 source, struct task_struct *task, __u64 now)
{
	__builtin_memset(event, 0, sizeof(*event));
	event->size = sizeof(*event);
	event->kind = kind;
	event->source = source;
	event->enter_ns = now;
	event->exit_ns = now;
	event->fd = -1;
	if (task) {
		event->tgid = TASK(task, tgid);
		event->tid = TASK(task, pid);
		event->cgroup = cgroup_of(task);
	}
}

/* An event of the current thread. */
static __always_inline void begin_event_of(struct event *event, __u8 kind, __u8 source, struct task_struct *task,
					   struct thread *thread, __u64 now)
{
	fill_event(event, kind, source, task, now);
	event->process_start_ns = thread->process_start_ns;
	event->coroutine = go_coroutine(event->tgid);
	event->turn = thread->turn;
	event->other_tgid = thread->wait;
	event->thread_event = thread->events++;
}

static __always_inline void begin_event(struct event *event, __u8 kind, __u8 source, struct thread *thread)
{
	begin_event_of(event, kind, source, this_task(), thread, bpf_ktime_get_boot_ns());
}

/* An event of the current thread, which need not be remembered. */
static __always_inline void begin_task_event(struct event *event, __u8 kind)
{
	struct task_struct *task = this_task();

	fill_event(event, kind, SOURCE_KERNEL, task, bpf_ktime_get_boot_ns());
	event->process_start_ns = process_start_ns(task);
}

/* The socket as remembered. */
static __always_inline void put_conn(struct event *event, struct conn *conn)
{
	event->conn = conn->id;
	event->conn_event = conn->events;
	event->flags |= conn->role;
	event->family = conn->family;
	event->protocol = conn->protocol;
	event->local_port = conn->local_port;
	event->remote_port = conn->remote_port;
	event->netns = conn->netns;
	event->ifindex = conn->ifindex;
	copy_address(event->local, conn->local);
	copy_address(event->remote, conn->remote);
}

/* What TCP knows at this moment. */
static __always_inline void put_tcp(struct event *event, struct sock *sk)
{
	const struct tcp_ulp_ops *ulp = LOAD(inet_connection_sock, sk, icsk_ulp_ops);

	event->tcp_state = COMMON(sk, skc_state);
	event->srtt_us = TCP(sk, srtt_us) >> 3;
	event->retrans = TCP(sk, total_retrans);
	if (ulp) {
		__u32 name = 0;

		bpf_core_read(&name, sizeof(name), &ulp->name);
		if (name == bpf_htonl(0x746c7300)) /* "tls" */
			event->flags |= FLAG_KTLS;
	}
}

/* Waking the reader for each event would cost more than the event: it looks by itself often enough unless much waits. Asking
 * how much waits is not free either: `count` says whether it is time to. */
static __always_inline __u64 wakeup(__u32 count)
{
	if (count % 8 == 0 && bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > settings.wake_above)
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

/* Room for an event in the ring. `size` is constant. */
static __always_inline struct event *reserve(__u64 size)
{
	struct event *event = bpf_ringbuf_reserve(&events, size, 0);

	COUNT(made, 1);
	if (!event)
		COUNT(ring_full, 1);
	return event;
}

/* The same for an event of `thread`. One that is lost has a number too, which a reader misses. */
static __always_inline struct event *reserve_for(struct thread *thread, __u64 size)
{
	struct event *event = reserve(size);

	if (!event)
		thread->events++;
	return event;
}

static __always_inline void *payload_of(struct event *event)
{
	return event + 1;
}

static __always_inline void submit(struct event *event)
{
	bpf_ringbuf_submit(event, wakeup(event->thread_event));
}

#endif
