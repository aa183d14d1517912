/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Keeps other tasks from the CPU while a program runs.
 *
 * From Linux 7.2 on, the kernel runs programs of system calls so that another task can have the CPU in the middle of one. As it runs
 * none twice at once on a CPU, the calls of all others there would go by untold until the first task goes on. */
#ifndef WIRESPAN_TRACER_PREEMPT_H
#define WIRESPAN_TRACER_PREEMPT_H

#include "tracer_maps.h"

/* bpf_preempt_disable and so on, whose numbers the loader puts in, as that of rdonly_cast. */
static void (*preempt_disable)(void) = (void *)0x7fff0002;
static void (*preempt_enable)(void) = (void *)0x7fff0003;
static void (*irq_save)(unsigned long *) = (void *)0x7fff0004;
static void (*irq_restore)(unsigned long *) = (void *)0x7fff0005;

static __always_inline void keep_cpu(void)
{
	if (settings.preemptible)
		preempt_disable();
}

/* preempt_enable gives the CPU to who waits for it at once, still in the program. While interrupts are off it does not: then who
 * waits has it when the program has ended. */
static __always_inline void give_cpu(void)
{
	unsigned long flags;

	if (!settings.preemptible)
		return;
	irq_save(&flags);
	preempt_enable();
	irq_restore(&flags);
}

/* BPF_PROG of a program that keeps the CPU from its first line to its last. */
#define UNDISTURBED_PROG(name, args...)                                                                                        \
	name(unsigned long long *ctx);                                                                                         \
	static __always_inline int ____##name(unsigned long long *ctx, ##args);                                                \
	int name(unsigned long long *ctx)                                                                                      \
	{                                                                                                                      \
		_Pragma("GCC diagnostic push")                                                                                 \
		_Pragma("GCC diagnostic ignored \"-Wint-conversion\"")                                                         \
		keep_cpu();                                                                                                    \
		____##name(___bpf_ctx_cast(args));                                                                             \
		give_cpu();                                                                                                    \
		return 0;                                                                                                      \
		_Pragma("GCC diagnostic pop")                                                                                  \
	}                                                                                                                      \
	static __always_inline int ____##name(unsigned long long *ctx, ##args)

#endif
