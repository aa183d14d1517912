/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* From a file descriptor to a socket, and what is known about that. */
#ifndef WIRESPAN_TRACER_SOCKET_H
#define WIRESPAN_TRACER_SOCKET_H

#include "tracer_maps.h"

/* The current task. */
static __always_inline struct task_struct *this_task(void)
{
	if (HAS_TASK_BTF)
		return bpf_get_current_task_btf();
	return (struct task_struct *)bpf_get_current_task();
}

/* A field of it. */
#define TASK(task, field) (HAS_TASK_BTF ? (task)->field : BPF_CORE_READ(task, field))

/* For what pointers in a task lead to. Whether one may be trusted, the verifier looks up in all the kernel's types, for
 * milliseconds each time; it does not ask that of what is cast. */
#define UNTRUSTED(task) (settings.casts ? CAST(task_struct, task) : (task))

/* The file behind a descriptor of the current process, or NULL. */
static __always_inline struct file *file_of(struct task_struct *task, int fd)
{
	struct fdtable *fdt = HAS_TASK_BTF ? task->files->fdt : BPF_CORE_READ(task, files, fdt);
	void *table = HAS_TASK_BTF ? fdt->fd : BPF_CORE_READ(fdt, fd);
	unsigned int max_fds = HAS_TASK_BTF ? fdt->max_fds : BPF_CORE_READ(fdt, max_fds);

	if ((unsigned int)fd >= max_fds)
		return NULL;
	/* Any structure that begins with a pointer does. */
	return (struct file *)LOAD(hlist_head, table + (__u64)(unsigned int)fd * sizeof(struct file *), first);
}

/* How many descriptors the current process has room for. */
static __always_inline unsigned int descriptors_of(struct task_struct *task)
{
	return HAS_TASK_BTF ? task->files->fdt->max_fds : BPF_CORE_READ(task, files, fdt, max_fds);
}

/* The same address as a number: the verifier allows no arithmetic on what it takes for a pointer. */
static __always_inline __u64 address_of(__u64 pointer)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &pointer);
	return address;
}

/* What the kernel itself tells sockets' files by; 0 until one was seen. It lies where a call looks anyway, unlike the inode. */
__u64 socket_operations;

static __always_inline bool is_socket(struct file *file)
{
	__u64 operations = (__u64)LOAD(file, file, f_op);
	struct inode *inode;

	if (operations == *(volatile __u64 *)&socket_operations)
		return true;
	inode = LOAD(file, file, f_inode);
	if ((LOAD(inode, inode, i_mode) & S_IFMT) != S_IFSOCK)
		return false;
	*(volatile __u64 *)&socket_operations = operations;
	return true;
}

/* The socket behind a descriptor of the current process; 0 when it is something else. */
static __always_inline __u64 socket_of(struct task_struct *task, int fd, struct file **file)
{
	struct socket *socket;

	*file = file_of(task, fd);
	if (!*file || !is_socket(*file))
		return 0;
	socket = LOAD(file, *file, private_data);
	return (__u64)LOAD(socket, socket, sk);
}

/* Nobody else holds the file. */
static __always_inline bool is_last_reference(struct file *file)
{
	if (bpf_core_field_exists(((struct file___ref *)0)->f_ref))
		return BPF_CORE_READ((struct file___ref *)file, f_ref.refcnt.counter) == 0;
	return BPF_CORE_READ((struct file___count *)file, f_count.counter) == 1;
}

static __always_inline struct inode *inode_of(struct socket *socket)
{
	return &((struct socket_alloc *)socket)->vfs_inode;
}

/* Inode of the socket at this end; 0 when no process has it yet, or any more. */
static __always_inline __u64 ino_of(struct sock *sk)
{
	struct socket *socket = SOCK(sk, sk_socket);

	return socket ? BPF_CORE_READ(inode_of(socket), i_ino) : 0;
}

/* One of TCP's own: what MPTCP has in the place of TCP's numbers is none of them. */
static __always_inline bool is_tcp(struct sock *sk)
{
	return SOCK(sk, sk_protocol) == IPPROTO_TCP;
}

static __always_inline bool is_mapped(const __u8 *address)
{
	const __u32 *words = (const __u32 *)address;

	return words[0] == 0 && words[1] == 0 && words[2] == bpf_htonl(0xffff);
}

static __always_inline void copy_address(__u8 *to, const __u8 *from)
{
	((__u64 *)to)[0] = ((const __u64 *)from)[0];
	((__u64 *)to)[1] = ((const __u64 *)from)[1];
}

static __always_inline void set_address4(__u8 *to, __u32 address)
{
	((__u64 *)to)[0] = 0;
	((__u64 *)to)[1] = 0;
	*(__u32 *)to = address;
}

/* A v4-mapped pair of addresses becomes one of IPv4; the wildcard of either family is all zero. */
static __always_inline void fold_mapped(__u16 *family, __u8 *local, __u8 *remote)
{
	if (*family != AF_INET6 || !(is_mapped(remote) || is_mapped(local)))
		return;
	*family = AF_INET;
	set_address4(local, is_mapped(local) ? *(__u32 *)(local + 12) : 0);
	set_address4(remote, is_mapped(remote) ? *(__u32 *)(remote + 12) : 0);
}

static __always_inline void read_inet(struct conn *conn, struct sock *sk)
{
	__u16 protocol = SOCK(sk, sk_protocol);

	conn->protocol = protocol == IPPROTO_MPTCP ? IPPROTO_TCP : protocol;
	conn->local_port = COMMON(sk, skc_num);
	conn->remote_port = bpf_ntohs(COMMON(sk, skc_dport));
	if (conn->family == AF_INET) {
		set_address4(conn->local, COMMON(sk, skc_rcv_saddr));
		set_address4(conn->remote, COMMON(sk, skc_daddr));
	} else {
		bpf_core_read(conn->local, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(conn->remote, 16, &sk->__sk_common.skc_v6_daddr);
		fold_mapped(&conn->family, conn->local, conn->remote);
	}
	/* Before its port is bound, and without a peer, a socket has no addresses to remember. */
	if (conn->protocol == IPPROTO_TCP && conn->local_port && conn->remote_port)
		conn->known = COMMON(sk, skc_state) != TCP_SYN_SENT;
	/* A child of a listener has its backlog; a socket that connects has none. */
	if (conn->known && !conn->role && SOCK(sk, sk_max_ack_backlog))
		conn->role = FLAG_SERVER;
}

static __always_inline void read_unix(struct conn *conn, struct sock *sk)
{
	struct sock *peer = LOAD(unix_sock, sk, peer);
	__u64 remote = peer ? ino_of(peer) : 0;

	conn->protocol = SOCK(sk, sk_type) != SOCK_STREAM;
	*(__u64 *)conn->local = conn->ino;
	*(__u64 *)conn->remote = remote;
	/* The server's end gets its inode when it is accepted. */
	conn->known = conn->protocol == 0 && remote;
}

/* The addresses, as far as they may have changed since the last look. */
static __always_inline void refresh_conn(struct conn *conn, struct sock *sk)
{
	if (conn->known)
		return;
	conn->family = COMMON(sk, skc_family);
	conn->ifindex = COMMON(sk, skc_bound_dev_if);
	conn->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	if (conn->family == AF_UNIX)
		read_unix(conn, sk);
	else
		read_inet(conn, sk);
}

/* Never twice: a CPU needs longer than 16 ns to make one. The time is enough for two years. */
static __always_inline __u64 new_conn_id(void)
{
	return bpf_ktime_get_boot_ns() >> 4 << 12 | (bpf_get_smp_processor_id() & 0xfff);
}

/* Those of neighbours are neighbours: the kernel makes sockets, of more than 2 KiB, in blocks of some, and each page of these places
 * that is looked at has to be found by the processor. Which blocks meet is up to chance. */
static __always_inline struct conn *conn_place_of(__u64 sk)
{
	__u32 block = (sk >> 15) * 0x9e3779b97f4a7c15 >> 32;
	__u32 place = (block << 4 | (sk >> 11 & 15)) & (settings.conn_places - 1);

	return bpf_map_lookup_elem(&conn_places, &place);
}

/* What is remembered of a socket, or NULL. */
static __always_inline struct conn *find_conn(__u64 sk)
{
	struct conn *place = conn_place_of(sk);

	return place && place->sk == sk ? place : bpf_map_lookup_elem(&conns, &sk);
}

/* What is remembered of a socket, as a rule in nobody's cache by now, is on its way while the call does its work. */
static __always_inline void fetch_conn(__u64 sk)
{
	struct conn *place = conn_place_of(sk);

	if (place)
		(void)*(volatile __u64 *)&place->id;
}

/* What was written before is seen before. */
static __always_inline void publish(__u64 *where, __u64 value)
{
	if (HAS_ATOMICS)
		__sync_lock_test_and_set(where, value);
	else
		*(volatile __u64 *)where = value;
}

/* Takes the place when it is nobody's. */
static __always_inline bool take_conn_place(struct conn *place)
{
	if (HAS_ATOMICS)
		return __sync_val_compare_and_swap(&place->taken, 0, 1) == 0;
	if (place->taken)
		return false;
	place->taken = 1;
	return true;
}

/* The socket is no more. */
static __noinline void forget_conn(__u64 sk)
{
	struct conn *place = conn_place_of(sk);

	if (place && place->sk == sk) {
		place->sk = 0;
		/* Only then may another have it. */
		publish(&place->taken, 0);
	}
	bpf_map_delete_elem(&conns, &sk);
}

/* Not inlined: it is on nobody's fast path. */
static __noinline struct conn *new_conn(__u64 sk, __u64 ino, __u16 role)
{
	struct conn conn = {.id = new_conn_id(), .ino = ino, .role = role};
	struct conn *made = conn_place_of(sk);

	/* Of a beginning it is known which end it is. */
	if (!role && is_tcp((struct sock *)sk))
		COUNT(conns_met, 1);
	if (made && (made->sk == sk || (is_tcp((struct sock *)sk) && take_conn_place(made)))) {
		conn.sk = made->sk;
		conn.taken = 1;
		*made = conn;
		/* Found by others only when it is complete. */
		publish(&made->sk, sk);
		return made;
	}
	bpf_map_update_elem(&conns, &sk, &conn, BPF_ANY);
	made = bpf_map_lookup_elem(&conns, &sk);
	if (!made)
		COUNT(conns_full, 1);
	return made;
}

/* What is known about a socket, new when it is another one at the same address. That of TCP is forgotten at its end, so that a look
 * at its inode, which is far from all else, is needed once. */
static __always_inline struct conn *conn_of(__u64 sk)
{
	struct conn *conn = find_conn(sk);
	__u64 ino;

	if (conn && conn->sk && conn->ino)
		return conn;
	ino = ino_of((struct sock *)sk);
	if (!conn || (conn->ino && ino && conn->ino != ino))
		conn = new_conn(sk, ino, 0);
	else if (!conn->ino)
		conn->ino = ino;
	return conn;
}

#endif
