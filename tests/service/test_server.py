"""The running service: uvicorn, a socket, signals."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from itertools import takewhile
from pathlib import Path

import pytest
from costbank_service import Settings, serving
from costbank_service.server import _listening

from costbank.errors import UsageError


def _get(url: str) -> dict:
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def test_serving_answers_beside_other_work_and_stops(store: Path):
    with serving(Settings(store=store, port=0)) as url:
        assert url.startswith("http://127.0.0.1:")
        assert _get(f"{url}/livez") == {"status": "ok"}
        assert len(_get(f"{url}/v1/banks/news/nearest?token_id=300&k=4")["neighbors"]) == 4
    with pytest.raises(OSError, match="refused"):
        _get(f"{url}/livez")


def test_serving_can_end_at_once(store: Path):
    with serving(Settings(store=store, port=0)):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(("with_signal", "as_json"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_the_command_serves_until_it_gets_a_signal(
    store: Path, with_signal: signal.Signals, as_json: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened.new && mv {tmp_path}/opened.new {tmp_path}/opened\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    command = [sys.executable, "-u", "-m", "costbank_cli", "serve", "--store", str(store), "--port", "0"]
    process = subprocess.Popen(
        [*command, *(["--json"] if as_json else ["--open"])], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        if as_json:
            lines = list(takewhile(lambda line: line not in ("}\n", ""), iter(process.stdout.readline, None)))
            url = json.loads("".join(lines) + "}")["url"]
        else:
            url = process.stdout.readline().split(" on ")[1].split()[0]
        assert {bank["name"] for bank in _get(f"{url}/v1/banks")} == {"news", "broken"}
        while not as_json and not (tmp_path / "opened").exists():
            time.sleep(0.05)
        assert (tmp_path / "opened").exists() == (not as_json)
        assert as_json or (tmp_path / "opened").read_text() == f"{url}\n"
        process.send_signal(with_signal)
        _, stderr = process.communicate(timeout=20)
        assert "Traceback" not in stderr
        assert process.returncode == 128 + with_signal
    finally:
        process.kill()


def test_a_port_that_is_taken_is_an_error(store: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port}") as caught, serving(Settings(store=store, port=port)):
            pass
        assert "--port" in caught.value.hint


def test_an_address_open_to_others_needs_a_key(store: Path):
    with pytest.raises(UsageError, match="no key"), serving(Settings(store=store, host="0.0.0.0", port=0)):
        pass


def test_answers_do_not_wait_for_acknowledgements(tmp_path: Path):
    """Without TCP_NODELAY, the second packet of an answer waits for up to 40 ms."""
    with _listening(Settings(store=tmp_path, port=0)) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
