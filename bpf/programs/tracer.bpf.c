// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Tells what the processes of this host do with sockets: facts only, one event each. What they mean is found out in user space.
//
// System calls are seen by the pair of tracepoints that all of them pass, not by one pair for each call: those go through
// perf's buffers, need tracefs, and cost a read of a file more. The table `calls` says which calls are of interest.
//
//	tracer_kernel.h		parts of the kernel's structures
//	tracer_arch.h		registers
//	tracer_maps.h		what is told, remembered and counted
//	tracer_socket.h		from a descriptor to a socket and its facts
//	tracer_event.h		events and the ring; what programs of uprobes need
//	tracer_preempt.h	the CPU, kept from others
//	tracer_payload.h	how much is copied, and from where
//	tracer_calls.h		calls that move bytes
//	tracer_lifecycle.h	connections, processes and threads
//	tracer_lengths.h	bytes without a call
//	tracer_wake.h		one thread wakes another
//	go.h			the goroutine that runs
//	tls.h, tls_go.h		plaintext of TLS libraries
//	python.h		work that threads of Python give to each other
//	node.h			what the loop of Node.js is at

#include "tracer_calls.h"
#include "tracer_lifecycle.h"
#include "tracer_lengths.h"
#include "tracer_preempt.h"
#include "tracer_wake.h"
#include "tls_go.h"
#include "grpc.h"
#include "python.h"
#include "node.h"

static __always_inline void enter(struct pt_regs *regs, long nr, __u8 call)
{
	struct task_struct *task = this_task();
	struct thread *thread;

	if (is_left_out(TASK(task, tgid)))
		return;
	if (is_compat(regs, task)) {
		COUNT(compat, 1);
		return;
	}
	switch (call) {
	case CALL_RING:
		wish_for_lengths();
		if (nr != NR_IO_URING_ENTER)
			return;
		/* It waits. */
	case CALL_WAIT:
		thread = find_thread(TASK(task, pid));
		if (thread) {
			__s32 ms = WAIT_MS(nr, regs);

			thread->turn++;
			reads_nothing(thread);
			thread->wait = ms == NO_WAIT_MS ? WAIT_UNKNOWN : ms < 0 ? WAIT_ENDLESS : WAIT_SOME + ms;
		}
		return;
	case CALL_ACCEPT:
		remember_accept(task, nr);
		return;
	case CALL_CLOSE:
		tell_close(ARG0(regs));
		return;
	case CALL_CLOSE_RANGE:
		tell_close_range(regs, task);
		return;
	case CALL_DUP:
		if (ARG0(regs) != ARG1(regs) && file_of(task, ARG0(regs)))
			tell_close(ARG1(regs));
		return;
	default:
		remember(regs, task, nr, call);
	}
}

/* What runs on every system call of the host comes first, and calls nothing. */
SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter, struct pt_regs *regs, long nr)
{
	__u8 call;

	if ((__u64)nr >= SYSCALLS_MAX || !(call = calls[nr]))
		return 0;
	keep_cpu();
	enter(regs, nr, call);
	give_cpu();
	return 0;
}

static __always_inline void leave(struct task_struct *task, struct thread *thread, __u32 tid, long result)
{
	switch (thread->call) {
	case CALL_CONNECT:
		tell_connect(thread, result);
		break;
	case CALL_ACCEPT:
		tell_accept(thread, result);
		break;
	default:
		if (result == -EAGAIN && thread->flags & CALL_INGRESS)
			tell_look(thread, tid);
		else
			tell_data(task, thread, tid, result);
	}
	thread->call = CALL_NONE;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit, struct pt_regs *regs, long result)
{
	__u64 nr = SYSCALL(regs);
	struct task_struct *task;
	struct thread *thread;
	__u32 tid;

	if (nr >= SYSCALLS_MAX || !calls[nr] || calls[nr] >= CALL_CLOSE)
		return 0;
	task = this_task();
	tid = TASK(task, pid);
	thread = find_thread(tid);
	if (!thread || !thread->call || thread->nr != nr)
		return 0;
	keep_cpu();
	leave(task, thread, tid, result);
	give_cpu();
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
