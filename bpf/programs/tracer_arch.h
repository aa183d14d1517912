/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Where a machine keeps the number and the arguments of a system call. The registers are those of a BTF tracepoint or of bpf_task_pt_regs, so they are read directly. */
#ifndef WIRESPAN_TRACER_ARCH_H
#define WIRESPAN_TRACER_ARCH_H

#include "tracer_socket.h"

/* Not told: the time is in memory. */
#define NO_WAIT_MS (-0x7fffffff)

/* The same on all machines. */
#define NR_IO_URING_ENTER 426

#if defined(__TARGET_ARCH_x86)

#define TS_COMPAT 2

#define ARG0(regs) ((regs)->di)
#define ARG1(regs) ((regs)->si)
#define ARG2(regs) ((regs)->dx)
#define ARG3(regs) ((regs)->r10)
#define ARG4(regs) ((regs)->r8)
#define ARG5(regs) ((regs)->r9)
#define SYSCALL(regs) ((long)(regs)->orig_ax)
#define NR_FUTEX 202

/* For how long a system call waits for events at most, ms; NO_WAIT_MS when that is not an argument. */
#define WAIT_MS(nr, regs) ((nr) == 232 || (nr) == 281 ? (__s32)ARG3(regs) : (nr) == 7 ? (__s32)ARG2(regs) : NO_WAIT_MS)

/* A 32-bit system call: its numbers are others. */
static __always_inline bool is_compat(struct pt_regs *regs, struct task_struct *task)
{
	return TASK(task, thread_info.status) & TS_COMPAT;
}

#elif defined(__TARGET_ARCH_arm64)

#define PSR_MODE32_BIT 0x10

#define ARG0(regs) ((regs)->regs[0])
#define ARG1(regs) ((regs)->regs[1])
#define ARG2(regs) ((regs)->regs[2])
#define ARG3(regs) ((regs)->regs[3])
#define ARG4(regs) ((regs)->regs[4])
#define ARG5(regs) ((regs)->regs[5])
#define SYSCALL(regs) ((long)(regs)->syscallno)
#define NR_FUTEX 98

#define WAIT_MS(nr, regs) ((nr) == 22 ? (__s32)ARG3(regs) : NO_WAIT_MS)

static __always_inline bool is_compat(struct pt_regs *regs, struct task_struct *task)
{
	return regs->pstate & PSR_MODE32_BIT;
}

#endif

#endif
