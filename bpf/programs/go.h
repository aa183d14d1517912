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

struct coroutine_key {
	__u64 coroutine;
	__u32 tgid;
	__u32 unused;
};

/* The socket call of a goroutine that ended last and moved bytes. */
struct coroutine_call {
	__u64 conn;
	__u64 sk;
	__u64 ns; /* the time of its event */
};

/* A goroutine may go on after a system call on another thread, which then does not know of the call. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct coroutine_key);
	__type(value, struct coroutine_call);
	__uint(max_entries, 8192);
} coroutine_calls SEC(".maps");

/* Not 0 once that is of use: a call of crypto/tls was seen. */
__u32 coroutine_calls_wanted;

static __always_inline void remember_coroutine_call(__u64 coroutine, __u32 tgid, __u64 conn, __u64 sk, __u64 ns)
{
	struct coroutine_key key = {.coroutine = coroutine, .tgid = tgid};
	struct coroutine_call call = {.conn = conn, .sk = sk, .ns = ns};
	struct coroutine_call *known = bpf_map_lookup_elem(&coroutine_calls, &key);

	if (known)
		*known = call;
	else
		bpf_map_update_elem(&coroutine_calls, &key, &call, BPF_ANY);
}

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
