/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* One thread of a process wakes another. Told when the waker used a socket, or was itself woken by such a thread, and is in a
 * system call that wakes on purpose: interrupts wake threads too, in the name of whoever they interrupt. */
#ifndef WIRESPAN_TRACER_WAKE_H
#define WIRESPAN_TRACER_WAKE_H

#include "tracer_arch.h"
#include "tracer_event.h"

#define FUTEX_OP 0x7f
#define FUTEX_OP_WAIT 0
#define FUTEX_OP_LOCK_PI 6
#define FUTEX_OP_WAIT_BITSET 9
/* What a mutex of the C libraries holds while somebody waits for it. */
#define MUTEX_CONTENDED 2

/* What the woken thread waits for: it still is in its system call. */
static __always_inline void put_futex(struct event *event, struct pt_regs *regs)
{
	__u32 op = ARG1(regs) & FUTEX_OP;

	if (SYSCALL(regs) != NR_FUTEX)
		return;
	if (op == FUTEX_OP_LOCK_PI)
		event->length = 1;
	else if (op == FUTEX_OP_WAIT || op == FUTEX_OP_WAIT_BITSET)
		event->length = ARG3(regs) || (op == FUTEX_OP_WAIT && (__u32)ARG2(regs) == MUTEX_CONTENDED);
	else
		return;
	event->tls = ARG0(regs);
}

SEC("tp_btf/sched_waking")
int BPF_PROG(waking, struct task_struct *woken)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 tid = task->pid, other = woken->pid;
	struct thread *thread, *other_thread;
	struct event *event;
	__u64 nr;

	if (woken->tgid != task->tgid || tid == 0 || is_left_out(woken->tgid))
		return 0;
	thread = find_thread(tid);
	/* A write to a socket wakes by its bytes, which are told already. */
	if (!thread || !thread->armed || thread->call)
		return 0;
	nr = SYSCALL((struct pt_regs *)bpf_task_pt_regs(task));
	if (nr >= SYSCALLS_MAX || !wakers[nr])
		return 0;
	other_thread = find_thread(other);
	if (!other_thread)
		other_thread = new_thread(other, thread->process_start_ns);
	if (other_thread)
		other_thread->armed = 1;
	event = reserve_for(thread, sizeof(*event));
	if (!event)
		return 0;
	begin_event_of(event, EVENT_WAKE, SOURCE_KERNEL, task, thread, bpf_ktime_get_boot_ns());
	event->other_tgid = woken->tgid;
	event->other_tid = other;
	put_futex(event, (struct pt_regs *)bpf_task_pt_regs(woken));
	submit(event);
	return 0;
}

#endif
