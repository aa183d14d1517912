/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Connections that open and close, processes and threads that begin and end. */
#ifndef WIRESPAN_TRACER_LIFECYCLE_H
#define WIRESPAN_TRACER_LIFECYCLE_H

#include "tracer_calls.h"
#include "tracer_preempt.h"

/* Tells that a connection is open. `thread` is in connect or accept. */
static __always_inline void tell_open(struct thread *thread, __u64 sk, int fd, __u16 role)
{
	struct conn *conn = conn_of(sk);
	struct event *event;

	if (!conn)
		return;
	conn->role = role;
	conn->closed = 0;
	refresh_conn(conn, (struct sock *)sk);
	/* A socket for datagrams that is disconnected has no peer; one of another family is none of ours. */
	if (conn->family != AF_UNIX && conn->remote_port == 0)
		return;
	if (conn->family != AF_INET && conn->family != AF_INET6 && conn->family != AF_UNIX)
		return;
	event = reserve_for(thread, sizeof(*event));
	if (!event)
		return;
	begin_event(event, EVENT_OPEN, SOURCE_SYSCALL, thread);
	event->enter_ns = thread->enter_ns;
	put_conn(event, conn);
	conn->told = 1;
	conn->tgid = event->tgid;
	conn->tid = event->tid;
	conn->process_start_ns = event->process_start_ns;
	event->fd = fd;
	event->other_tid = thread->stream;
	event->syscall = thread->call;
	if (is_tcp((struct sock *)sk)) {
		put_tcp(event, (struct sock *)sk);
		event->tcp_seq = TCP(sk, write_seq);
		event->opposite_seq = TCP(sk, copied_seq);
	}
	submit(event);
	name_conn(conn, sk, thread->enter_ns);
}

static __always_inline void tell_connect(struct thread *thread, long result)
{
	if (result == 0 || result == -EINPROGRESS)
		tell_open(thread, thread->sk, thread->fd, FLAG_CLIENT);
}

static __always_inline void tell_accept(struct thread *thread, long result)
{
	struct file *file;
	__u64 sk;

	if (result < 0)
		return;
	sk = address_of(socket_of(this_task(), result, &file));
	if (sk)
		tell_open(thread, sk, result, FLAG_SERVER);
}

/* Remembers accept, which has no connection yet. */
static __always_inline void remember_accept(struct task_struct *task, __u16 nr)
{
	struct thread *thread = thread_of(task);

	if (!thread)
		return;
	thread->sk = 0;
	thread->nr = nr;
	thread->call = CALL_ACCEPT;
	thread->enter_ns = bpf_ktime_get_boot_ns();
}

/* A descriptor is about to be closed: tells of it when it is the last one of a socket. A global function, so that the verifier
 * looks at it once and not for each descriptor. */
__noinline int tell_close(__u32 fd)
{
	struct task_struct *task = this_task();
	struct file *file;
	struct thread *thread;
	struct conn *conn;
	struct event *event;
	__u64 sk = address_of(socket_of(task, fd, &file));

	if (!sk || !is_last_reference(file))
		return 0;
	conn = find_conn(sk);
	if (!conn || (!conn->sk && conn->ino != ino_of((struct sock *)sk)))
		return 0;
	thread = thread_of(task);
	if (conn->told && !conn->closed && thread) {
		event = reserve_for(thread, sizeof(*event));
		if (event) {
			begin_event(event, EVENT_CLOSE, SOURCE_SYSCALL, thread);
			put_conn(event, conn);
			event->fd = fd;
			event->syscall = CALL_CLOSE;
			if (is_tcp((struct sock *)sk))
				put_tcp(event, (struct sock *)sk);
			submit(event);
		}
	}
	conn->closed = 1;
	/* TCP's own end comes with tcp_destroy_sock. */
	if (!is_tcp((struct sock *)sk))
		forget_conn(sk);
	return 0;
}

/* All descriptors of a range are about to be closed. */
static __always_inline void tell_close_range(struct pt_regs *regs, struct task_struct *task)
{
	__u32 fd = ARG0(regs), last = ARG1(regs), flags = ARG2(regs);
	__u32 end = descriptors_of(task);

	if (flags & CLOSE_RANGE_CLOEXEC)
		return;
	/* Of a table that others share, a copy loses them. */
	if ((flags & CLOSE_RANGE_UNSHARE) && BPF_CORE_READ(task, files, count.counter) > 1)
		return;
	for (int i = 0; i < CLOSED_AT_ONCE; i++, fd++) {
		if (fd > last || fd >= end)
			return;
		tell_close(fd);
	}
	COUNT(closes_over, 1);
}

/* Somebody uses io_uring. */
static __always_inline void wish_for_lengths(void)
{
	__u32 zero = 0;
	struct wishes *wished = bpf_map_lookup_elem(&wishes, &zero);

	if (wished && !wished->lengths)
		wished->lengths = 1;
}

/* Often runs in an interrupt: who is current means nothing. */
SEC("tp_btf/inet_sock_set_state")
int UNDISTURBED_PROG(set_state, struct sock *socket, int before, int after)
{
	__u64 sk = address_of((__u64)socket);
	struct conn *conn;
	struct event *event;

	if (!is_tcp(socket))
		return 0;
	if (after == TCP_SYN_SENT) {
		new_conn(sk, ino_of(socket), FLAG_CLIENT);
		return 0;
	}
	if (after == TCP_ESTABLISHED && before == TCP_SYN_RECV) {
		new_conn(sk, 0, FLAG_SERVER);
		return 0;
	}
	if (after != TCP_CLOSE)
		return 0;
	conn = find_conn(sk);
	if (!conn || conn->closed || !conn->told)
		return 0;
	conn->closed = 1;
	event = reserve(sizeof(*event));
	if (!event)
		return 0;
	fill_event(event, EVENT_CLOSE, SOURCE_KERNEL, NULL, bpf_ktime_get_boot_ns());
	event->tgid = conn->tgid;
	event->tid = conn->tid;
	event->process_start_ns = conn->process_start_ns;
	put_conn(event, conn);
	put_tcp(event, socket);
	event->tcp_state = after;
	submit(event);
	return 0;
}

SEC("tp_btf/tcp_destroy_sock")
int UNDISTURBED_PROG(destroy_sock, struct sock *socket)
{
	forget_conn(address_of((__u64)socket));
	return 0;
}

SEC("tp_btf/sched_process_fork")
int UNDISTURBED_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	struct event *event;

	if (is_left_out(bpf_get_current_pid_tgid() >> 32))
		return 0;
	event = reserve(sizeof(*event));
	if (!event)
		return 0;
	begin_task_event(event, EVENT_FORK);
	event->other_tgid = child->tgid;
	event->other_tid = child->pid;
	submit(event);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int UNDISTURBED_PROG(process_exec, struct task_struct *task, int old_pid, struct linux_binprm *binary)
{
	struct event *event;
	__u32 tid = old_pid;
	long len;

	/* A thread other than the first becomes the first: what was known by its old id is of the past. */
	forget_thread(tid);
	tid = task->tgid;
	bpf_map_delete_elem(&go_programs, &tid);
	if (is_left_out(bpf_get_current_pid_tgid() >> 32))
		return 0;
	event = reserve(CLASS_256);
	if (!event)
		return 0;
	begin_task_event(event, EVENT_EXEC);
	len = bpf_probe_read_kernel_str(payload_of(event), 256, binary->filename);
	if (len > 1) {
		event->captured = len - 1;
		event->length = len - 1;
		event->size += len - 1;
	}
	/* Its first requests may be under way when the reader looks by itself: probes on it are to be there before. */
	bpf_ringbuf_submit(event, BPF_RB_FORCE_WAKEUP);
	return 0;
}

static __always_inline void tell_exit(__u32 tid)
{
	struct event *event = reserve(sizeof(*event));

	if (!event)
		return;
	begin_task_event(event, EVENT_EXIT);
	event->tid = tid;
	submit(event);
}

/* The first thread may end long before the process; the process ends with its last one. */
SEC("tp_btf/sched_process_exit")
int UNDISTURBED_PROG(process_exit, struct task_struct *task)
{
	__u32 tid = task->pid, tgid = task->tgid;
	bool is_last = BPF_CORE_READ(task, signal, live.counter) == 0;

	forget_thread(tid);
	if (is_last)
		bpf_map_delete_elem(&go_programs, &tgid);
	if (is_left_out(tgid))
		return 0;
	if (tid != tgid)
		tell_exit(tid);
	if (is_last)
		tell_exit(tgid);
	return 0;
}

#endif
