/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Copies what a call moved, and decides how much of it. */
#ifndef WIRESPAN_TRACER_PAYLOAD_H
#define WIRESPAN_TRACER_PAYLOAD_H

#include "tracer_event.h"

/* Keeps the compiler from undoing a bound that the verifier has to see. */
#define OPAQUE(x) asm volatile("" : "+r"(x))

/* The same value by way of memory, where the verifier does not follow: what comes behind is looked at once, not for each way that
 * led to the value. */
#define THROUGH(place, value)                                                                                                  \
	({                                                                                                                     \
		*(volatile typeof(place) *)&(place) = (value);                                                                 \
		*(volatile typeof(place) *)&(place);                                                                           \
	})

/* The first bytes of the preface of HTTP/2: "PRI ". */
#define HTTP2_PREFACE bpf_htonl(0x50524920)
/* So much of what is sent on such a connection before the other end answers. */
#define FRAMES_BUDGET (64 * 1024)
/* Events in which what one call moves there is told of, at most. */
#define FRAMES_PARTS 16

/* Of calls that move no more than this, all is wanted. */
#define SHORT_CALL 256

/* RFC 9113 section 4.1: length (3 bytes), type, flags, stream (4 bytes). */
#define FRAME_HEADER 9
#define FRAME_HEADERS 1
#define FRAME_WINDOW_UPDATE 8
/* Of HEADERS: END_STREAM, END_HEADERS, PADDED, PRIORITY. */
#define FRAME_HEADERS_FLAGS 0x2d

/* Of IOV_MAX buffers, so many are looked at in one go. */
#define IOV_AT_ONCE 16

#define DIRECTION_IN 1
#define DIRECTION_OUT 2

/* A connection that is sampled out. Numbers are times: their middle bits are as good as random. */
static __always_inline bool is_muted(struct conn *conn, struct default_policy *policy)
{
	return (conn->id >> 20 & policy->sample_mask) != 0;
}

/* Sets what is wanted of a connection: anew when that has changed. */
static __always_inline void apply_policy(struct conn *conn)
{
	__u32 zero = 0;
	struct default_policy *policy = bpf_map_lookup_elem(&default_policy, &zero);

	if (!policy || conn->policy == policy->version + 1)
		return;
	conn->policy = policy->version + 1;
	conn->snap = policy->snap;
	conn->budget = policy->budget;
	conn->mute = is_muted(conn, policy);
}

/* Whether bytes begin as HTTP/2 does: with its preface, or, where the beginning was not seen, with a frame that opens or feeds a
 * stream. What is taken for it by chance is captured in greater length, no more. */
static __always_inline bool begins_frames(const __u8 *bytes, __u32 len)
{
	if (len < FRAME_HEADER)
		return false;
	if (*(const __u32 *)bytes == HTTP2_PREFACE)
		return true;
	/* No frame is longer than 16 KiB unless the peers agree on more. */
	if (bytes[0] || bytes[1] > 0x40 || bytes[5] & 0x80)
		return false;
	if (bytes[3] == FRAME_HEADERS)
		return !(bytes[4] & ~FRAME_HEADERS_FLAGS) && bytes[8] & 1;
	return bytes[3] == FRAME_WINDOW_UPDATE && !bytes[1] && bytes[2] == 4 && !bytes[4];
}

/* How many bytes of a call's payload, of `length`, are wanted, when `used` of the budget are; more where `frames` says that HTTP/2 is
 * spoken. What is short is a message of its own more often than a piece of a long one, and costs little: commands that are sent one
 * after the other before the first is answered. */
static __always_inline __u32 wanted(__u32 snap, __u32 budget, __u32 used, bool frames, __u32 length)
{
	__u32 left;

	if (length <= SHORT_CALL)
		return length < snap ? length : snap;
	if (frames && snap != 0) {
		budget = budget < FRAMES_BUDGET ? FRAMES_BUDGET : budget;
		snap = budget;
	}
	left = budget > used ? budget - used : 0;
	left = left < snap ? left : snap;
	return left < length ? left : length;
}

/* The first `len` bytes at `address` of the process; 0 when they are not in memory. */
static __always_inline __u32 copy_bytes(__u8 *to, __u64 address, __u32 len)
{
	if (len == 0)
		return 0;
	if (len > CAPTURE_MAX)
		len = CAPTURE_MAX;
	return bpf_probe_read_user(to, len, (void *)address) ? 0 : len;
}

static __always_inline struct scratch *scratch_of_cpu(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratches, &zero);
}

/* Copies IOV_AT_ONCE buffers of the message in the scratch, of which `len` bytes are wanted; false when there is no more to copy. A
 * global function, so that the verifier looks at its loop once. How far it got is kept in memory, where the verifier does not
 * follow it: each round looks alike, whatever the one before did. */
__noinline int copy_buffers(__u32 first, __u32 len)
{
	struct scratch *scratch = scratch_of_cpu();

	if (!scratch || first > IOV_MAX - IOV_AT_ONCE)
		return false;
	for (int i = 0; i < IOV_AT_ONCE; i++) {
		__u64 part = scratch->iov[first + i].len, base = scratch->iov[first + i].base;
		__u32 skip = *(volatile __u32 *)&scratch->skip, at = *(volatile __u32 *)&scratch->at;

		if (first + i >= scratch->message.count || at >= len || at >= CAPTURE_MAX)
			return false;
		if (part <= skip) {
			*(volatile __u32 *)&scratch->skip = skip - part;
			continue;
		}
		*(volatile __u32 *)&scratch->skip = 0;
		base += skip;
		part -= skip;
		if (part > len - at)
			part = len - at;
		part = THROUGH(scratch->part, part);
		if (part > CAPTURE_MAX || bpf_probe_read_user(scratch->payload + at, part, (void *)base))
			return false;
		*(volatile __u32 *)&scratch->at = at + part;
	}
	return true;
}

/* The first `len` bytes of the message in the scratch, which is in several buffers. A global function for the same reason. */
__noinline __u32 copy_iov(__u32 len)
{
	struct scratch *scratch = scratch_of_cpu();
	__u64 count;

	if (!scratch || len == 0)
		return 0;
	scratch->at = 0;
	scratch->skip = scratch->message.from;
	count = scratch->message.count;
	if (count > IOV_MAX)
		count = IOV_MAX;
	OPAQUE(count);
	if (count > IOV_MAX || bpf_probe_read_user(scratch->iov, count * sizeof(struct iovec), (void *)scratch->message.buffer))
		return 0;
	for (int first = 0; first < IOV_MAX; first += IOV_AT_ONCE) {
		if (!copy_buffers(first, len))
			break;
	}
	return *(volatile __u32 *)&scratch->at;
}

#endif
