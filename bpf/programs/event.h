/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the tracer says of one happening on the host. The same layout is in capture/event/src/header.rs; a test there compares
 * sizes and offsets. Times are CLOCK_BOOTTIME; multi-byte fields are in host order. */
#ifndef WIRESPAN_EVENT_H
#define WIRESPAN_EVENT_H

#include <linux/types.h>

enum event_kind {
	EVENT_DATA = 1,	   /* bytes went through a socket or a TLS library call */
	EVENT_OPEN = 2,	   /* connect or accept succeeded (or is in progress) on this thread */
	EVENT_CLOSE = 3,   /* the connection is over */
	EVENT_FORK = 4,	   /* this thread made `other_tgid`/`other_tid` */
	EVENT_EXEC = 5,	   /* this process is another program now; the payload is its file name */
	EVENT_EXIT = 6,	   /* this thread ended; the process, when tid == tgid */
	EVENT_WAKE = 7,	   /* this thread woke `other_tid` of its own process */
	EVENT_SOCKET = 8,  /* bytes went through a socket without a traced system call: io_uring */
	EVENT_TLS_FREE = 9, /* the TLS session `tls` is no more */
	EVENT_LOOK = 10,   /* this thread found nothing to read on an open connection that another had read from last */
	EVENT_STREAM = 11, /* this thread asks for the stream `length` of the HTTP/2 session at `tls`; what asks is sent later. 0: something
			      came on it for the first time; without `conn`, as nothing came yet: it sends what was asked for. Go: the coroutine
			      `coroutine` asked for it at that time, and the coroutine `tls` sends it next. Go with FLAG_INGRESS: the
			      coroutine `coroutine` answers the stream; 0: it reads what comes on the session */
	EVENT_NAME = 12	   /* the payload is what this end of a UNIX socket is bound to; with FLAG_INGRESS, the other end */
};

enum event_source {
	SOURCE_SYSCALL = 0,
	SOURCE_OPENSSL = 1,
	SOURCE_GNUTLS = 2,
	SOURCE_GO_TLS = 3,
	SOURCE_KERNEL = 4, /* a tracepoint below the system calls */
	SOURCE_GO = 5,	   /* Go's runtime or net/http: `coroutine` lets the coroutine `tls` work for it */
	SOURCE_QUEUE = 6,  /* a queue of Python: FORK: this thread put the item `tls` there; WAKE: it took it */
	SOURCE_NODE = 7	   /* Node.js */
};

enum event_flags {
	FLAG_INGRESS = 1 << 0,	      /* received; else sent */
	FLAG_SEQ_AMBIGUOUS = 1 << 1,  /* another thread moved the sequence number during the call */
	FLAG_NO_DATA = 1 << 2,	      /* the payload could not be read, or is left out by policy */
	FLAG_MORE = 1 << 3,	      /* MSG_MORE */
	FLAG_SERVER = 1 << 4,	      /* this end accepted the connection */
	FLAG_CLIENT = 1 << 5,	      /* this end connected */
	FLAG_IO_URING = 1 << 6,
	FLAG_FIRST_IN_DIRECTION = 1 << 7, /* the other direction was the last one to carry data */
	FLAG_KTLS = 1 << 8,
	FLAG_TRUNCATED = 1 << 9 /* captured < length */
};

/* Which system call moved the bytes. */
enum traced_call {
	CALL_NONE = 0,
	CALL_READ,
	CALL_READV,
	CALL_RECVFROM,
	CALL_RECVMSG,
	CALL_RECVMMSG,
	CALL_WRITE,
	CALL_WRITEV,
	CALL_SENDTO,
	CALL_SENDMSG,
	CALL_SENDMMSG,
	CALL_SENDFILE,
	CALL_SPLICE,
	CALL_CONNECT,
	CALL_ACCEPT,
	CALL_CLOSE
};

/* How long a thread's last wait (epoll, poll) was to last at most. */
enum wait_limit {
	WAIT_UNKNOWN = 0,
	WAIT_ENDLESS = 1,
	WAIT_SOME = 2, /* plus milliseconds */
	WAIT_TIMERS = 0xffffffff /* no wait: the thread runs what its timers are for */
};

struct event {
	__u32 size; /* of this header and the payload behind it */
	__u8 kind;
	__u8 source;
	__u16 flags;
	__u64 enter_ns; /* DATA of a system call: both are the time that counts, before a send and after a receive */
	__u64 exit_ns;
	__u32 tgid; /* of the initial pid namespace, like all of them */
	__u32 tid;
	__u64 process_start_ns; /* start_boottime of the thread group leader */
	__u64 coroutine;	/* goroutine id; 0 for none */
	__u64 cgroup;		/* id of the cgroup v2 */
	__u64 conn;		/* of this socket, never used twice in a run; 0 for none */
	__u64 tls;		/* address of the TLS session's structure; 0 for none. WAKE: futex that the other waits for; 0 for none */
	__u32 turn;		/* waits (epoll, poll, select, io_uring) of this thread so far */
	__u32 thread_event;	/* events of this thread so far, those that were lost as well; 0 for one that has no number */
	__u32 conn_event;	/* data events of this socket so far, sent ones before 1 as well */
	__u32 tcp_seq;		/* of the first byte; 0 for other protocols */
	__u32 opposite_seq;	/* sent: next byte to read; received: next byte to write, at the same instant */
	__u32 length;		/* bytes that the call moved. WAKE: not 0 when the other waits for a lock, or for a limited time. FORK, Go: where the go statement is */
	__u32 captured;		/* bytes of payload behind this header */
	__s32 fd;
	__u32 other_tgid; /* DATA, OPEN, LOOK, STREAM: enum wait_limit of this thread */
	__u32 other_tid;  /* DATA of system calls, OPEN, STREAM: HTTP/2 stream of the bytes received last whose frame this thread is at; 0
			     for none. DATA sent in a TLS session: its events that were numbered while the call was under way */
	__u32 netns; /* inode. UNIX: of who connected, at both ends */
	__u32 ifindex; /* SO_BINDTODEVICE; 0 for none */
	__u32 srtt_us; /* TCP's smoothed round trip */
	__u32 retrans; /* segments that TCP sent again so far */
	__u16 family;  /* AF_INET, AF_INET6 (v4-mapped addresses come as AF_INET), AF_UNIX; 0 without a socket */
	__u16 local_port;
	__u16 remote_port;
	__u8 protocol; /* IPPROTO_TCP, IPPROTO_UDP; 0 for a stream, 1 for datagrams with AF_UNIX */
	__u8 tcp_state;
	__u8 local[16]; /* IPv4: the first four bytes. UNIX: the inode of this end */
	__u8 remote[16]; /* UNIX: the inode of the other end */
	__u32 iov_count;
	__u32 syscall; /* enum traced_call */
};

_Static_assert(sizeof(struct event) == 176, "the header is 176 bytes");

#endif
