/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The number of the goroutine that runs, found without a probe on the scheduler: Go keeps a pointer to the running g in the
 * thread's local storage. */
#ifndef WIRESPAN_GO_H
#define WIRESPAN_GO_H

#include "tracer_maps.h"

/* The same as GoProgram in src/tracer/go.rs. */
struct go_program {
	__s32 g;    /* where the pointer to the running g is, from the thread pointer; 0 when that is unknown */
	__u32 goid; /* where in a g its number is */
	__u32 self; /* where in it the thread pointer is, as in the state of a thread of Python; 0 when it is not there */
};

/* By process. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct go_program);
	__uint(max_entries, 16384);
} go_programs SEC(".maps");

/* More goroutines than a process makes; a larger number is something else. */
#define GOID_MAX (1ULL << 48)

/* The number of a g of the current process; 0 for the system's stacks, which have none. */
static __always_inline __u64 goid_of(struct go_program *program, __u64 g)
{
	__u64 goid = 0;

	if (bpf_probe_read_user(&goid, sizeof(goid), (void *)(g + program->goid)) || goid >= GOID_MAX)
		return 0;
	return goid;
}

/* The goroutine that runs on the current thread; 0 when it is none. */
static __always_inline __u64 go_coroutine(__u32 tgid)
{
#if defined(__TARGET_ARCH_x86)
	__u32 zero = 0;
	struct default_policy *policy = bpf_map_lookup_elem(&default_policy, &zero);
	struct go_program *program;
	unsigned long base;
	__u64 g = 0, self = 0;

	if (!policy || !policy->coroutines)
		return 0;
	program = bpf_map_lookup_elem(&go_programs, &tgid);
	if (!program || !program->g)
		return 0;
	if (HAS_TASK_BTF)
		base = bpf_get_current_task_btf()->thread.fsbase;
	else
		base = BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), thread.fsbase);
	if (bpf_probe_read_user(&g, sizeof(g), (void *)(base + program->g)))
		return 0;
	if (program->self && (bpf_probe_read_user(&self, sizeof(self), (void *)(g + program->self)) || self != base))
		return 0;
	return goid_of(program, g);
#else
	return 0;
#endif
}

#endif
