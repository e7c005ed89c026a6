"""Where alerts arrive, and what becomes of them where an address does not take them."""

import http.server
import json
import socket
import threading

import pytest

from resources.alerts import Alerts

ECHO = b"POST /secret-token is not for me\r\n"


@pytest.fixture
def webhook():
    """A server on loopback and the bodies that were posted to it."""
    posted = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/secret-token", posted
    server.shutdown()
    server.server_close()


def test_an_alert_is_posted_to_the_webhook(webhook, tmp_path):
    address, posted = webhook
    assert Alerts(file=str(tmp_path / "alerts.log"), webhook=address).tell("crawl-1 failed") is None
    assert posted == [{"text": "crawl-1 failed"}]


@pytest.fixture
def address(request):
    """An address; in the place of `PORT` that of a server that answers with these bytes, whatever it is asked."""
    text, answer = request.param
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        if answer:
            threading.Thread(target=serve, daemon=True).start()
        yield text.replace("PORT", str(server.getsockname()[1]))


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        (("http://127.0.0.1:9/secret-token", b""), "Connection refused"),
        (("no address: secret-token", b""), "URLError"),
        (("secret-token", b""), "ValueError"),
        (("http://127.0.0.1:9/secret token", b""), "InvalidURL"),
        (("http://127.0.0.1:secret-token/", b""), "InvalidURL"),
        (("http://127.0.0.1:PORT/secret-token", ECHO), "BadStatusLine"),
        (("http://127.0.0.1:PORT/secret-token", b"HTTP/1.1 404 no /secret-token\r\n\r\n"), "status 404"),
    ],
    indirect=["address"],
)
def test_a_webhook_that_takes_no_alert_loses_none_and_its_secret_is_not_told(tmp_path, address, fault):
    trouble = Alerts(file=str(tmp_path / "alerts.log"), webhook=address).tell("crawl-1 failed")
    assert fault in trouble
    assert "check CLIPCOV_ALERT_WEBHOOK" in trouble
    assert "secret" not in trouble
    assert (tmp_path / "alerts.log").read_text() == "crawl-1 failed\n\n"
