# Loads LIBRARY, an OpenSSL, after SECONDS, and says TEXT between two ends in memory, over and over: memory.py LIBRARY SECONDS TEXT
import ctypes
import sys
import time

library, seconds, text = sys.argv[1], float(sys.argv[2]), sys.argv[3].encode()
time.sleep(seconds)
POINTER, SIZE = ctypes.c_void_p, ctypes.c_size_t
crypto, ssl = ctypes.CDLL("libcrypto.so.3"), ctypes.CDLL(library)
for function in ssl.TLS_method, ssl.SSL_CTX_new, ssl.SSL_new:
    function.restype = POINTER

context = POINTER(ssl.SSL_CTX_new(POINTER(ssl.TLS_method())))
# Without a certificate: TLS 1.2, with parameters for anonymous key exchange.
assert ssl.SSL_CTX_set_cipher_list(context, b"ADH-AES128-GCM-SHA256:@SECLEVEL=0") == 1
assert ssl.SSL_CTX_ctrl(context, 124, ctypes.c_long(0x0303), None) == 1
assert ssl.SSL_CTX_ctrl(context, 118, ctypes.c_long(1), None) == 1
client, server = POINTER(ssl.SSL_new(context)), POINTER(ssl.SSL_new(context))
there, back = POINTER(), POINTER()
assert crypto.BIO_new_bio_pair(ctypes.byref(there), SIZE(0), ctypes.byref(back), SIZE(0)) == 1
ssl.SSL_set_bio(client, there, there)
ssl.SSL_set_bio(server, back, back)
ssl.SSL_set_connect_state(client)
ssl.SSL_set_accept_state(server)
while [ssl.SSL_do_handshake(client), ssl.SSL_do_handshake(server)] != [1, 1]:
    pass
print("ready", flush=True)
buffer = ctypes.create_string_buffer(len(text))
while True:
    assert ssl.SSL_write(client, text, len(text)) == len(text)
    assert ssl.SSL_read(server, buffer, len(text)) == len(text)
    time.sleep(0.02)
