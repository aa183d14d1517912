# A client of Python's ssl module: client.py PORT PATH
import http.client
import ssl
import sys

context = ssl._create_unverified_context()
connection = http.client.HTTPSConnection("127.0.0.1", int(sys.argv[1]), context=context)
connection.request("GET", sys.argv[2])
print(connection.getresponse().read().decode())
