/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Python's SimpleQueue, which executors give their work to threads with: who put what, and who took it. */
#ifndef WIRESPAN_PYTHON_H
#define WIRESPAN_PYTHON_H

#include "tracer_event.h"

#if defined(__TARGET_ARCH_x86)

/* The item is an object's address: nobody else's while it is in the queue. */
static __always_inline int tell_item(__u8 kind, __u64 item)
{
	struct thread *thread;
	struct event *event;

	if (!item || is_left_out(bpf_get_current_pid_tgid() >> 32))
		return 0;
	thread = this_thread();
	event = thread ? reserve_for(thread, sizeof(*event)) : NULL;
	if (!event)
		return 0;
	begin_event(event, kind, SOURCE_QUEUE, thread);
	event->tls = item;
	event->other_tgid = event->tgid;
	submit(event);
	return 0;
}

/* put(self, arguments, count, names): the item is the first argument, named or not. */
SEC("uprobe")
int python_put(struct pt_regs *regs)
{
	__u64 item = 0;

	bpf_probe_read_user(&item, sizeof(item), (void *)regs->si);
	return tell_item(EVENT_FORK, item);
}

/* On the return instructions of get, whose result is the item's address or NULL. */
SEC("uprobe")
int python_got(struct pt_regs *regs)
{
	return tell_item(EVENT_WAKE, regs->ax);
}

/* As its return probe. */
SEC("uretprobe")
int python_taken(struct pt_regs *regs)
{
	return tell_item(EVENT_WAKE, regs->ax);
}

#endif

#endif
