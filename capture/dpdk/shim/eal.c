/* Starting DPDK's environment abstraction layer (EAL), and what it and the drivers say meanwhile. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_log.h>

#include "shim.h"

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char log_text[4096];
static size_t log_len;
static int log_collects;

/* While a call is under way its messages are kept for the error's text; any others go to stderr. */
static ssize_t log_write(void *cookie, const char *text, size_t len)
{
	(void)cookie;
	pthread_mutex_lock(&log_lock);
	if (log_collects) {
		size_t room = sizeof(log_text) - log_len;
		size_t kept = len < room ? len : room;
		memcpy(log_text + log_len, text, kept);
		log_len += kept;
	} else if (write(STDERR_FILENO, text, len) < 0) {
		/* Nobody reads it. */
	}
	pthread_mutex_unlock(&log_lock);
	return len;
}

void ws_log_collect(void)
{
	pthread_mutex_lock(&log_lock);
	log_len = 0;
	log_collects = 1;
	pthread_mutex_unlock(&log_lock);
}

size_t ws_log_take(char *text, size_t room)
{
	pthread_mutex_lock(&log_lock);
	size_t len = log_len < room ? log_len : room;
	memcpy(text, log_text, len);
	log_collects = 0;
	pthread_mutex_unlock(&log_lock);
	return len;
}

int ws_eal_init(int argc, char **argv)
{
	FILE *log = fopencookie(NULL, "w", (cookie_io_functions_t){ .write = log_write });
	if (log == NULL)
		return -errno;
	setvbuf(log, NULL, _IOLBF, 0);
	rte_openlog_stream(log);
	rte_log_set_global_level(RTE_LOG_ERR);
	/* A wrong option prints a page of usage past the log; of C's streams only, Rust has its own. */
	FILE *out = stdout, *err = stderr;
	stdout = stderr = log;
	int result = rte_eal_init(argc, argv);
	fflush(log);
	stdout = out;
	stderr = err;
	return result < 0 ? -(rte_errno ? rte_errno : EINVAL) : 0;
}

int ws_thread_register(void)
{
	if (rte_lcore_id() != LCORE_ID_ANY)
		return 0;
	return rte_thread_register() < 0 ? -rte_errno : 1;
}

void ws_thread_unregister(void)
{
	rte_thread_unregister();
}
