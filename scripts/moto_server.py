"""moto's S3 server with a bucket, over TLS if it gets a certificate and its key: moto_server.py [CERTIFICATE KEY]

It handles one request at a time: moto checks a condition and then writes without holding a lock, so with threads it
sometimes lets two competitors win.
"""

import ssl
import sys
import threading
import urllib.request

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

certificate = tuple(sys.argv[1:]) or None
application = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", 0, application, threaded=False, ssl_context=certificate)
threading.Thread(target=server.serve_forever).start()
address = f"{'https' if certificate else 'http'}://127.0.0.1:{server.port}"
trusting = ssl._create_unverified_context() if certificate else None
urllib.request.urlopen(urllib.request.Request(f"{address}/bucket", method="PUT"), context=trusting).close()
print(f"listens on {address}", flush=True)
