# A client of Python's ssl module: client.py PORT PATH [ktls]
import http.client
import ssl
import sys

context = ssl._create_unverified_context()
if sys.argv[3:] == ["ktls"]:
    # OP_ENABLE_KTLS, which has a name from Python 3.12 on.
    context.options |= 8
connection = http.client.HTTPSConnection("127.0.0.1", int(sys.argv[1]), context=context)
connection.request("GET", sys.argv[2])
print(connection.getresponse().read().decode())
