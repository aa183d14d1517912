/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Bytes that go through a socket without a system call that is remembered: those of io_uring. Needs Linux 6.3. These programs run
 * for the bytes of all other calls as well, so they are attached when a process uses io_uring. */
#ifndef WIRESPAN_TRACER_LENGTHS_H
#define WIRESPAN_TRACER_LENGTHS_H

#include "tracer_calls.h"
#include "tracer_preempt.h"

static __always_inline int tell_length(struct sock *socket, int length, bool ingress)
{
	__u64 sk = address_of((__u64)socket), nr;
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 tid = task->pid, tgid = task->tgid;
	struct thread *thread;
	struct socket *owner;
	struct conn *conn;
	struct event *event;
	__u16 family;

	if (length <= 0)
		return 0;
	thread = find_thread(tid);
	/* In a call that is remembered, its end tells of them. */
	if ((thread && thread->call) || is_left_out(tgid))
		return 0;
	family = COMMON(socket, skc_family);
	if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
		return 0;
	/* The kernel's own sockets have no file. */
	owner = SOCK(socket, sk_socket);
	if (!owner || !LOAD(socket, owner, file) || (task->flags & PF_KTHREAD))
		return 0;
	if (!thread)
		thread = thread_of(task);
	conn = conn_of(sk);
	if (!thread || !conn)
		return 0;
	refresh_conn(conn, socket);
	apply_policy(conn);
	conn->tgid = tgid;
	if (conn->mute) {
		COUNT(muted, 1);
		return 0;
	}
	name_conn(conn, sk, bpf_ktime_get_boot_ns());
	event = reserve_for(thread, sizeof(*event));
	if (!event) {
		conn->events++;
		return 0;
	}
	begin_event_of(event, EVENT_SOCKET, SOURCE_KERNEL, task, thread, bpf_ktime_get_boot_ns());
	nr = SYSCALL((struct pt_regs *)bpf_task_pt_regs(task));
	thread->armed = 1;
	put_conn(event, conn);
	conn->events++;
	conn->told = 1;
	conn->tid = tid;
	conn->process_start_ns = event->process_start_ns;
	conn->direction = ingress ? DIRECTION_IN : DIRECTION_OUT;
	event->flags |= FLAG_NO_DATA | FLAG_TRUNCATED | (ingress ? FLAG_INGRESS : 0);
	if ((task->flags & PF_IO_WORKER) || (nr < SYSCALLS_MAX && calls[nr] == CALL_RING))
		event->flags |= FLAG_IO_URING;
	event->length = length;
	if (is_tcp(socket)) {
		__u32 written = TCP(sk, write_seq);
		__u32 copied = TCP(sk, copied_seq);

		event->tcp_seq = (ingress ? copied : written) - length;
		event->opposite_seq = ingress ? written : copied;
		put_tcp(event, socket);
	}
	submit(event);
	return 0;
}

SEC("tp_btf/sock_send_length")
int UNDISTURBED_PROG(send_length, struct sock *sk, int length, int flags)
{
	return tell_length(sk, length, false);
}

SEC("tp_btf/sock_recv_length")
int UNDISTURBED_PROG(recv_length, struct sock *sk, int length, int flags)
{
	if (flags & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB))
		return 0;
	return tell_length(sk, length, true);
}

#endif
