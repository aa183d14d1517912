"""Both ends of a TLS session of OpenSSL in this process's memory, without a system call between them.

Each line of input is how many rounds to make. Each is answered by a line: for each function the fewest ns that a call took.
"""

import ctypes
import sys
import time

MESSAGE = 512
# As many as the memory between the ends holds.
AT_ONCE = 16

SET_DH_AUTO, SET_MAX_VERSION, TLS_1_2 = 118, 124, 0x0303
POINTER, SIZE = ctypes.c_void_p, ctypes.c_size_t

crypto = ctypes.CDLL("libcrypto.so.3")
ssl = ctypes.CDLL("libssl.so.3")
for function, result, arguments in [
    (crypto.BIO_new_bio_pair, ctypes.c_int, [POINTER, SIZE, POINTER, SIZE]),
    (ssl.TLS_method, POINTER, []),
    (ssl.SSL_CTX_new, POINTER, [POINTER]),
    (ssl.SSL_CTX_set_cipher_list, ctypes.c_int, [POINTER, ctypes.c_char_p]),
    (ssl.SSL_CTX_ctrl, ctypes.c_long, [POINTER, ctypes.c_int, ctypes.c_long, POINTER]),
    (ssl.SSL_new, POINTER, [POINTER]),
    (ssl.SSL_set_bio, None, [POINTER, POINTER, POINTER]),
    (ssl.SSL_set_accept_state, None, [POINTER]),
    (ssl.SSL_set_connect_state, None, [POINTER]),
    (ssl.SSL_do_handshake, ctypes.c_int, [POINTER]),
    (ssl.SSL_write, ctypes.c_int, [POINTER, POINTER, ctypes.c_int]),
    (ssl.SSL_read, ctypes.c_int, [POINTER, POINTER, ctypes.c_int]),
    (ssl.SSL_write_ex, ctypes.c_int, [POINTER, POINTER, SIZE, POINTER]),
    (ssl.SSL_read_ex, ctypes.c_int, [POINTER, POINTER, SIZE, POINTER]),
]:
    function.restype, function.argtypes = result, arguments


def session():
    context = ssl.SSL_CTX_new(ssl.TLS_method())
    # Without a certificate.
    assert ssl.SSL_CTX_set_cipher_list(context, b"ADH-AES128-GCM-SHA256:@SECLEVEL=0") == 1
    assert ssl.SSL_CTX_ctrl(context, SET_MAX_VERSION, TLS_1_2, None) == 1
    assert ssl.SSL_CTX_ctrl(context, SET_DH_AUTO, 1, None) == 1
    ends = [ssl.SSL_new(context), ssl.SSL_new(context)]
    pair = POINTER(), POINTER()
    assert crypto.BIO_new_bio_pair(ctypes.byref(pair[0]), 0, ctypes.byref(pair[1]), 0) == 1
    for end, bio in zip(ends, pair):
        ssl.SSL_set_bio(end, bio, bio)
    ssl.SSL_set_connect_state(ends[0])
    ssl.SSL_set_accept_state(ends[1])
    while [ssl.SSL_do_handshake(end) for end in ends] != [1, 1]:
        pass
    return ends


def timed(function, *arguments):
    start = time.perf_counter_ns()
    for _ in range(AT_ONCE):
        function(*arguments)
    return (time.perf_counter_ns() - start) / AT_ONCE


def main():
    ends = session()
    message = ctypes.create_string_buffer(b"x" * MESSAGE, MESSAGE)
    moved = SIZE()
    out = ctypes.byref(moved)
    print("ready", flush=True)
    for line in sys.stdin:
        best = [float("inf")] * 4
        for _ in range(int(line)):
            # The other way each time: a message that never ends has its payload left out.
            ends.reverse()
            client, server = ends
            times = [
                timed(ssl.SSL_write, client, message, MESSAGE),
                timed(ssl.SSL_read, server, message, MESSAGE),
                timed(ssl.SSL_write_ex, client, message, MESSAGE, out),
                timed(ssl.SSL_read_ex, server, message, MESSAGE, out),
            ]
            assert moved.value == MESSAGE
            best = [min(pair) for pair in zip(best, times)]
        print(*best, flush=True)


main()
