/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Node.js: what its loop is at. */
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
	return 0;
}

#endif
