/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Go: crypto/tls, and which goroutine works for which.
 *
 * Arguments and results are in registers (Go 1.17 and later): rax, rbx, rcx, rdi; the running g is in r14. */
#ifndef WIRESPAN_TLS_GO_H
#define WIRESPAN_TLS_GO_H

#include "go.h"
#include "tls.h"

#if defined(__TARGET_ARCH_x86)

/* Where a g has the top of its stack. */
#define G_STACK_TOP 8

#define HAS_COOKIE bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_attach_cookie)

/* What is known of the current process; its first goroutine is made before it does anything else. A probe knows the program
 * that it is in, so that no process has to be told of first; before Linux 5.15 it does not. */
static __always_inline struct go_program *go_program(struct pt_regs *regs, __u32 tgid)
{
	struct go_program *known = bpf_map_lookup_elem(&go_programs, &tgid);
	struct go_program program = {};
	__u64 cookie;

	if (known || !HAS_COOKIE)
		return known;
	cookie = bpf_get_attach_cookie(regs);
	if (!cookie || is_left_out(tgid))
		return NULL;
	program.goid = (__u32)cookie;
	program.g = cookie >> 32;
	bpf_map_update_elem(&go_programs, &tgid, &program, BPF_NOEXIST);
	return bpf_map_lookup_elem(&go_programs, &tgid);
}

/* Fills in the key of a call of the running goroutine; false when it is none of a known program. */
static __always_inline bool go_call(struct pt_regs *regs, __u32 tgid, struct go_program *program, struct tls_call_key *key)
{
	__u64 top = 0;

	if (!program || is_left_out(tgid))
		return false;
	key->who = goid_of(program, regs->r14);
	if (!key->who || bpf_probe_read_user(&top, sizeof(top), (void *)(regs->r14 + G_STACK_TOP)))
		return false;
	key->where = top - regs->sp;
	key->tgid = tgid;
	return true;
}

static __always_inline int go_enter(struct pt_regs *regs, __u8 what)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct tls_call_key key = {};
	struct tls_call call = {
		.enter_ns = bpf_ktime_get_boot_ns(),
		.tls = regs->ax,
		.buffer = regs->bx,
		.what = what,
		.source = SOURCE_GO_TLS,
	};

	if (!go_call(regs, tgid, go_program(regs, tgid), &key))
		return 0;
	if (!*(volatile __u32 *)&coroutine_calls_wanted)
		*(volatile __u32 *)&coroutine_calls_wanted = 1;
	/* Others may read meanwhile. */
	if (what == TLS_WRITE) {
		struct tls_session_key session_key = {.tls = call.tls, .tgid = tgid};
		struct tls_session *session = bpf_map_lookup_elem(&tls_sessions, &session_key);

		call.events = session ? session->events : 0;
	}
	bpf_map_update_elem(&tls_calls, &key, &call, BPF_ANY);
	return 0;
}

/* (*tls.Conn).Read(p) */
SEC("uprobe")
int go_tls_read(struct pt_regs *regs)
{
	return go_enter(regs, TLS_READ);
}

/* (*tls.Conn).Write(p) */
SEC("uprobe")
int go_tls_write(struct pt_regs *regs)
{
	return go_enter(regs, TLS_WRITE);
}

/* The call that began with the stack pointer `depth` above where it is now returns `moved`, or is going to. */
static __always_inline int go_end(struct pt_regs *regs, __u32 depth, __s64 moved)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct tls_call_key key = {};
	struct tls_call *known;
	struct tls_call call;

	/* Who saw the beginning knows the program. */
	if (!go_call(regs, tgid, bpf_map_lookup_elem(&go_programs, &tgid), &key))
		return 0;
	key.where -= depth;
	known = bpf_map_lookup_elem(&tls_calls, &key);
	if (!known)
		return 0;
	call = *known;
	bpf_map_delete_elem(&tls_calls, &key);
	if (moved > 0)
		tell_tls(this_thread(), &call, moved, key.who);
	return 0;
}

/* On a return instruction. */
SEC("uprobe")
int go_tls_return(struct pt_regs *regs)
{
	return go_end(regs, 0, regs->ax);
}

/* Kinds of words: the same as GoWord::cookie in src/tracer/go.rs. */
#define WORD_REGISTER 1
#define WORD_STACK 2

/* Adds a word to `sum`; false when it cannot be read. Registers are those of `regs`, by their numbers in instructions. */
static __always_inline bool add_word(struct pt_regs *regs, __u64 *registers, __u8 kind, __u16 where, __u64 *sum)
{
	__u64 word = 0;

	if (kind == WORD_REGISTER)
		word = registers[where & 15];
	else if (kind == WORD_STACK && bpf_probe_read_user(&word, sizeof(word), (void *)(regs->sp + where)))
		return false;
	*sum += word;
	return true;
}

/* What a call returns, at an instruction behind which nothing changes that; where it is is in the probe's cookie. Not inlined: its
 * stack is not needed any more behind it. */
static __noinline bool go_result(struct pt_regs *regs, __u64 cookie, __u64 *result)
{
	__u64 registers[] = {regs->ax, regs->cx, regs->dx, regs->bx, regs->sp, regs->bp, regs->si, regs->di,
			     regs->r8, regs->r9, regs->r10, regs->r11, regs->r12, regs->r13, regs->r14, regs->r15};

	*result = 0;
	return add_word(regs, registers, cookie >> 32, cookie >> 16, result) &&
	       add_word(regs, registers, cookie >> 56, cookie >> 40, result);
}

SEC("uprobe")
int go_tls_known(struct pt_regs *regs)
{
	__u64 cookie, moved;

	if (!HAS_COOKIE)
		return 0;
	cookie = bpf_get_attach_cookie(regs);
	return go_result(regs, cookie, &moved) ? go_end(regs, (__u16)cookie, moved) : 0;
}

/* (*tls.Conn).Close() */
SEC("uprobe")
int go_tls_close(struct pt_regs *regs)
{
	return tls_end(regs->ax, SOURCE_GO_TLS);
}

struct go_request_key {
	__u64 conn; /* address of the persistConn */
	__u32 tgid;
	__u32 unused;
};

/* Requests of net/http's client that wait for being written: the goroutine that waits for the answer. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct go_request_key);
	__type(value, __u64);
	__uint(max_entries, 8192);
} go_requests SEC(".maps");

struct go_birth {
	__u64 parent;
	__u64 place; /* address behind the go statement */
};

/* Goroutines that are being made, by thread. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, __u32);
	__type(value, struct go_birth);
	__uint(max_entries, 8192);
} go_births SEC(".maps");

/* Goroutine `from` lets `to` work for it; with a go statement at `place`, if that is not 0. */
static __always_inline void tell_handoff(__u8 kind, __u64 from, __u64 to, __u32 place)
{
	struct thread *thread = this_thread();
	struct event *event = thread ? reserve_for(thread, sizeof(*event)) : NULL;

	if (!event)
		return;
	begin_event(event, kind, SOURCE_GO, thread);
	event->coroutine = from;
	event->tls = to;
	event->length = place;
	event->other_tgid = event->tgid;
	submit(event);
}

static __always_inline __u64 running_goid(struct pt_regs *regs)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct go_program *program = go_program(regs, tgid);

	return program && !is_left_out(tgid) ? goid_of(program, regs->r14) : 0;
}

/* (*http.persistConn).roundTrip(request), on the goroutine of who asks */
SEC("uprobe")
int go_round_trip(struct pt_regs *regs)
{
	struct go_request_key key = {.conn = regs->ax, .tgid = bpf_get_current_pid_tgid() >> 32};
	__u64 goid = running_goid(regs);

	if (goid)
		bpf_map_update_elem(&go_requests, &key, &goid, BPF_ANY);
	return 0;
}

/* (http.persistConnWriter).Write(p), on the connection's own goroutine */
SEC("uprobe")
int go_request_write(struct pt_regs *regs)
{
	struct go_request_key key = {.conn = regs->ax, .tgid = bpf_get_current_pid_tgid() >> 32};
	__u64 *from = bpf_map_lookup_elem(&go_requests, &key);
	__u64 goid;

	if (!from)
		return 0;
	goid = running_goid(regs);
	if (goid && goid != *from)
		tell_handoff(EVENT_WAKE, *from, goid, 0);
	bpf_map_delete_elem(&go_requests, &key);
	return 0;
}

/* runtime.newproc1(function, parent, place, ...), on the system's stack of the parent's thread */
SEC("uprobe")
int go_newproc(struct pt_regs *regs)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u32 tid = (__u32)pid_tgid, tgid = pid_tgid >> 32;
	struct go_program *program = go_program(regs, tgid);
	struct go_birth birth = {.place = regs->cx};

	if (!program || is_left_out(tgid))
		return 0;
	birth.parent = goid_of(program, regs->bx);
	if (birth.parent)
		bpf_map_update_elem(&go_births, &tid, &birth, BPF_ANY);
	return 0;
}

/* The goroutine is made; `g` is its structure. */
static __always_inline int go_born(__u64 g)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u32 tid = (__u32)pid_tgid, tgid = pid_tgid >> 32;
	struct go_birth *birth = bpf_map_lookup_elem(&go_births, &tid);
	/* Who saw the beginning knows the program. */
	struct go_program *program = bpf_map_lookup_elem(&go_programs, &tgid);
	__u64 child;

	if (!birth || !program)
		return 0;
	child = goid_of(program, g);
	if (child)
		tell_handoff(EVENT_FORK, birth->parent, child, birth->place);
	bpf_map_delete_elem(&go_births, &tid);
	return 0;
}

/* On its return instruction. */
SEC("uprobe")
int go_newproc_return(struct pt_regs *regs)
{
	return go_born(regs->ax);
}

/* Before that, where its result is known. */
SEC("uprobe")
int go_newproc_known(struct pt_regs *regs)
{
	__u64 g;

	return HAS_COOKIE && go_result(regs, bpf_get_attach_cookie(regs), &g) ? go_born(g) : 0;
}

/* The current context of Python was copied, for another task. */
static __always_inline int python_copy(struct pt_regs *regs)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	__u64 parent;

	if (is_left_out(tgid))
		return 0;
	parent = go_coroutine(tgid);
	if (parent && regs->ax && regs->ax < GOID_MAX)
		tell_handoff(EVENT_FORK, parent, regs->ax, 0);
	return 0;
}

/* On the return instructions of PyContext_CopyCurrent, and of what it ends in. */
SEC("uprobe")
int python_context(struct pt_regs *regs)
{
	return python_copy(regs);
}

/* As its return probe. */
SEC("uretprobe")
int python_copied(struct pt_regs *regs)
{
	return python_copy(regs);
}

#endif

#endif
