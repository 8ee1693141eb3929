"""Asks for basic authentication before a server of this machine: basic_auth.py PORT SERVER_PORT USER PASSWORD."""
import base64
import http.client
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, server_port = int(sys.argv[1]), int(sys.argv[2])
expected = "Basic " + base64.b64encode(f"{sys.argv[3]}:{sys.argv[4]}".encode()).decode()
HOP = {"connection", "keep-alive", "transfer-encoding", "host", "authorization", "content-length"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_request(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != expected:
            self.answer(401, [("WWW-Authenticate", 'Basic realm="registry"'), ("Content-Type", "application/json")],
                        b'{"error_code":401,"message":"Unauthorized"}')
            return
        server = http.client.HTTPConnection("127.0.0.1", server_port, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            server.request(self.command, self.path, body or None, headers)
            response = server.getresponse()
            content = response.read()
            self.answer(response.status, [h for h in response.getheaders() if h[0].lower() not in HOP], content)
        except OSError as error:
            self.answer(502, [("Content-Type", "text/plain")], f"the registry does not answer: {error}".encode())
        finally:
            server.close()

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = handle_request


ThreadingHTTPServer.allow_reuse_address = True
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
