/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the tracer is told, remembers and counts. */
#ifndef WIRESPAN_TRACER_MAPS_H
#define WIRESPAN_TRACER_MAPS_H

#include "event.h"
#include "tracer_kernel.h"

/* System calls have numbers below this on all machines. */
#define SYSCALLS_MAX 512
/* Payload of one event at most. A power of two, so that the verifier sees the bound of a mask. */
#define CAPTURE_MAX 8192
/* Buffers of one call that are looked into. */
#define IOV_MAX 256
/* Messages of one recvmmsg or sendmmsg that make an event. */
#define MESSAGES_MAX 16
/* Descriptors of one close_range that are looked at. */
#define CLOSED_AT_ONCE 1024

/* Of the table of system calls, behind enum traced_call. */
#define CALL_WAIT 16
#define CALL_RING 17 /* of io_uring */
#define CALL_CLOSE_RANGE 18
#define CALL_DUP 19 /* onto a descriptor, which is closed before */

/* The same as `settings` in src/tracer/object.rs. */
struct settings {
	__u32 left_out; /* process whose calls are not traced; 0 for none */
	__u32 only;	/* the one process whose calls are traced; 0 for all */
	__u32 wake_above; /* bytes in the ring from which its reader is woken */
	__u32 casts; /* not 0: the kernel has bpf_rdonly_cast */
	__u32 places; /* elements of the map of that name: a power of two */
	__u32 conn_places; /* the same of that map */
	__u32 preemptible; /* not 0: the kernel gives the CPU to others while a program runs: see tracer_preempt.h */
};

const volatile struct settings settings;

/* bpf_rdonly_cast (Linux 6.2), whose number the loader puts in: makes an address a pointer that is read without a call. Reads by
 * helper, which is the other way, cost ten times as much; the verifier drops the one that is not taken. */
static void *(*rdonly_cast)(const void *, __u32) = (void *)0x7fff0001;

#define CAST(type, address) ((struct type *)rdonly_cast((const void *)(address), bpf_core_type_id_kernel(struct type)))
#define LOAD(type, address, field)                                                                                             \
	(settings.casts ? CAST(type, address)->field : BPF_CORE_READ((struct type *)(address), field))
#define SOCK(sk, field) LOAD(sock, sk, field)
#define COMMON(sk, field) LOAD(sock, sk, __sk_common.field)
#define TCP(sk, field) LOAD(tcp_sock, sk, field)

/* By number of a system call: enum traced_call, CALL_WAIT and so on, or 0. */
const volatile __u8 calls[SYSCALLS_MAX];

/* By number of a system call: not 0 when one thread wakes another on purpose with it. */
const volatile __u8 wakers[SYSCALLS_MAX];

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 23);
} events SEC(".maps");

/* A thread that uses sockets. Uprobes may use all of it: a thread is in one place at a time. */
struct thread {
	__u32 tid; /* in `places`: whose it is, 0 for nobody's */
	__u8 call; /* 0 when in none */
	__u8 flags; /* CALL_... below */
	__u16 nr;
	/* The system call that the thread is in, when it is on a socket. */
	__u64 enter_ns; /* not of a receive, which counts from its end */
	__u64 sk;
	__u64 buffer; /* address of bytes, of iovecs, of a msghdr or of mmsghdrs, by call */
	__u64 count;  /* bytes or elements there */
	__u64 name;   /* address of a sockaddr, or 0 */
	__s32 fd;
	__u32 write_seq;
	__u32 copied_seq;

	__u32 turn;
	__u32 wait; /* the last of them: enum wait_limit */
	__u32 events;
	__u64 process_start_ns;

	/* The socket call that ended last and moved bytes: what TLS probes bind a session to. */
	__u64 last_conn;
	__u64 last_sk;
	__u64 last_ns; /* the time of its event */
	__u64 last_coroutine;
	__s32 last_fd;
	__u32 last_seq; /* of its first byte */
	__u32 last_length;
	__u8 last_ingress;
	__u8 armed; /* used a socket, or was woken by one that did: its wake-ups are told */
	__u8 pad[2];

	/* The socket that the bytes came from which the thread is at, CONN_MUTE for one whose data is not told, and the HTTP/2 stream of
	 * them; 0 when that is not known. */
	__u64 read_conn;
	__u32 stream;
	__u32 want; /* of what a TLS library moved: see THROUGH */
	__u64 plain; /* stack pointer of the TLS library's call that it is in; 0 for none */
};

#define CONN_MUTE ~0ULL

#define CALL_INGRESS 1
#define CALL_TCP 2
#define CALL_MORE 4
#define CALL_DISCARD 8 /* MSG_TRUNC: bytes are counted, not copied */
#define CALL_SEQ_UNKNOWN 16 /* the socket is none of TCP's own (MPTCP): its sequence numbers are not those on the wire */

/* A thread has the place of its id, which is found without a call and without a look at anything else. Where another has that
 * already, it is in `crowd`, whose threads `crowded` counts: nobody looks there while there are none. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct thread);
	__uint(max_entries, 32768);
} places SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct thread);
	__uint(max_entries, 32768);
} crowd SEC(".maps");

__u32 crowded;

/* A socket, by the address of its struct sock. `ino`, which no two sockets share, tells when that address is used again. */
struct conn {
	__u64 sk;    /* in `conn_places`: whose it is, 0 for nobody's */
	__u64 taken; /* there: not 0 while it is somebody's, or about to be */
	__u64 id;
	__u64 ino; /* 0 before a descriptor was seen */
	/* Who used it last. */
	__u64 process_start_ns;
	__u32 tgid;
	__u32 tid;

	__u32 events;
	__u32 policy; /* version of the policy that snap and budget come from, plus 1 */
	__u32 snap;
	__u32 budget;
	__u32 used; /* of the budget */
	__u16 role; /* FLAG_SERVER, FLAG_CLIENT or 0 */
	__u8 direction; /* of the last data: 1 received, 2 sent, 0 none */
	__u8 told; /* an event of it was made */
	__u8 closed;
	__u8 known; /* the addresses are */

	__u8 protocol;
	__u8 mute;
	__u8 frames; /* it speaks HTTP/2: heads that are not seen make those behind them unreadable */
	__u8 named;  /* the name of a UNIX socket was told, or it has none */
	__u16 family;
	__u16 local_port;
	__u16 remote_port;
	__u8 local[16];
	__u8 remote[16];
	__u32 netns;
	__u32 ifindex;
};

/* A connection of TCP, whose end never goes unseen, has the place of its address, which is found without a call. Where another has
 * that already, and for all other sockets, there is `conns`. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct conn);
	__uint(max_entries, 16384);
} conn_places SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, __u64);
	__type(value, struct conn);
	__uint(max_entries, 65536);
} conns SEC(".maps");

/* What is wanted of connections. The same as DefaultPolicy in src/tracer/policy.rs. */
struct default_policy {
	__u32 version; /* how often it was changed */
	__u32 snap;
	__u32 budget;
	__u32 sample_mask; /* connections with one of these bits in their number have no data events */
	__u32 coroutines;  /* not 0: there is, or was, a process in go_programs */
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct default_policy);
	__uint(max_entries, 1);
} default_policy SEC(".maps");

/* What was seen that the reader has to do something for; not 0 when it was. */
struct wishes {
	__u32 lengths; /* io_uring is used: the programs of tracer_lengths.h are to be attached */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct wishes);
	__uint(max_entries, 1);
} wishes SEC(".maps");

/* The same as Counters in src/tracer/stats.rs. */
struct counters {
	__u64 made;	     /* events, those that were lost because the ring was full too */
	__u64 ring_full;     /* events */
	__u64 threads_full;  /* calls of threads that there was no room for */
	__u64 conns_full;    /* calls on sockets that there was no room for */
	__u64 muted;	     /* calls, by policy */
	__u64 unreadable;    /* events whose payload was not in memory */
	__u64 messages_over; /* messages of one call beyond MESSAGES_MAX */
	__u64 peeked;	     /* calls that left the bytes in the socket */
	__u64 compat;	     /* 32-bit calls */
	__u64 closes_over;   /* calls of close_range that had more descriptors than CLOSED_AT_ONCE */
	__u64 conns_met;     /* connections of TCP whose beginning was not seen, or is not remembered */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct counters);
	__uint(max_entries, 1);
} counters SEC(".maps");

#define COUNT(field, n)                                                                                                        \
	do {                                                                                                                   \
		__u32 zero_ = 0;                                                                                               \
		struct counters *counters_ = bpf_map_lookup_elem(&counters, &zero_);                                           \
		if (counters_)                                                                                                 \
			__sync_fetch_and_add(&counters_->field, n);                                                            \
	} while (0)

/* One message of a call. */
struct message {
	__u64 buffer;
	__u64 count;
	__u64 name;
	__u32 length;
	__u32 before; /* bytes of the call before it */
	__u32 moved;  /* bytes of the whole call */
	__u32 from;   /* where in its buffers it begins: those before are told of already */
	__u32 is_iov;
	__u32 unused;
};

/* Where the end of a system call puts its event together; twice the room, so that offset and length are bounded each by itself.
 * Only for that program, which the kernel does not run twice at once on a CPU. What is large is here and not on the stack: before
 * Linux 6.13, a program and all that it calls have 512 bytes of that. */
struct scratch {
	struct message message;
	struct user_mmsghdr header;
	__u32 at;   /* bytes in payload */
	__u32 skip; /* bytes of buffers before them */
	__u32 part; /* of them, bytes of one buffer */
	__u32 want; /* bytes that are wanted of the message */
	__u32 got;  /* bytes of it in payload */
	struct event event;
	__u8 payload[2 * CAPTURE_MAX];
	struct iovec iov[IOV_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct scratch);
	__uint(max_entries, 1);
} scratches SEC(".maps");

#endif
