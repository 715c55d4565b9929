"""The files in service/deploy: a real nginx in front of a real service, and settings and paths that exist."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from costbank_service import Settings, serving

from costbank.bank import Bank, verify_bank
from costbank.remote import open_url

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "service" / "deploy"
KEY = "key-of-a-team"


def _get(url: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    headers = {"Accept-Encoding": "gzip", **headers}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {}, error.read()


@pytest.fixture(scope="module")
def proxied(byte_bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URLs of a service with a key, and of nginx in front of it. Only addresses and TLS differ from nginx.conf."""
    if not (nginx := shutil.which("nginx")):
        pytest.skip("nginx is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    settings = Settings(store=byte_bank.path.parents[1], port=0, api_key=KEY, keep_alive_s=75)
    with serving(settings) as url, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        site = (DEPLOY / "nginx.conf").read_text("utf-8")
        site = re.sub(r"^\s*ssl_.*\n", "", site, flags=re.M).replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
        site = site.replace("127.0.0.1:8137", url.removeprefix("http://"))
        temporary = "".join(
            f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            f"{'user root;' if os.geteuid() == 0 else ''}\npid {folder}/pid;\nevents {{}}\n"
            "http {\naccess_log off;\ngzip on;\ngzip_min_length 1;\n"
            f"gzip_types application/json application/problem+json;\n{temporary}{site}}}\n",
            "utf-8",
        )
        taken.close()
        command = [nginx, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                _wait_for(port, process)
                yield url, f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def _wait_for(port: int, process: subprocess.Popen[str]) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            assert process.poll() is None, "another program took the port"
            return
        except OSError:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.05)
    pytest.fail("nginx does not answer")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/banks", "/v1/banks/bytes", "/v1/banks/bytes/nearest?token=%E4%BD&k=3", "/v1/banks/bytes/tokens?q=+k",
        "/v1/banks/bytes/nearest?token=missing", "/v1/banks/none", "/nothing", "/openapi.json",
    ],
)  # fmt: skip
def test_answers_through_a_proxy_are_those_of_the_service(proxied: tuple[str, str], path: str):
    (direct, _, body), (through, headers, same) = (
        _get(base + path, Authorization=f"Bearer {KEY}", **{"X-Request-Id": "1"}) for base in proxied
    )
    assert (through, same) == (direct, body)
    if through == 200:
        assert headers["x-request-id"] == "1"
    assert "content-encoding" not in headers


def test_a_proxy_passes_on_keys_parts_and_digests(proxied: tuple[str, str]):
    _, base = proxied
    assert _get(f"{base}/v1/banks")[0] == 401
    assert _get(f"{base}/metrics")[0] == 403
    file, key = f"{base}/v1/banks/bytes/files/manifest.json", {"Authorization": f"Bearer {KEY}"}
    status, headers, whole = _get(file, **key)
    assert (status, json.loads(whole)["vectors"]["dim"]) == (200, 8)
    assert _get(file, **key, Range="bytes=2-5")[::2] == (206, whole[2:6])
    assert _get(file, **key, **{"If-None-Match": headers["etag"]})[0] == 304


def test_bodies_pass_a_proxy_which_refuses_what_is_too_large_as_the_service_does(proxied: tuple[str, str]):
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    body = json.dumps({"rows": [1, 2], "cols": [3]}).encode()
    (_, _, direct), (status, _, through) = (_get(f"{base}/v1/banks/bytes/costs", body, **headers) for base in proxied)
    assert (status, through) == (200, direct)
    status, _, answer = _get(f"{proxied[1]}/v1/banks/bytes/costs", body.ljust(8_193 * 1_024), **headers)
    assert (status, json.loads(answer)["code"]) == (413, "content-too-large")


def test_a_bank_is_opened_through_a_proxy(
    proxied: tuple[str, str], byte_bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COSTBANK_API_KEY", KEY)
    bank = open_url(f"{proxied[1]}/v1/banks/bytes", cache=tmp_path)
    assert bank.id == byte_bank.id
    verify_bank(bank.path)


def test_every_setting_in_these_files_exists():
    files = [path for path in DEPLOY.iterdir() if path.is_file()]
    texts = [path.read_text("utf-8") for path in (*files, ROOT / "docs" / "howto" / "deploy.md")]
    names = set(re.findall(r"\bCOSTBANK_([A-Z_]+)\b", "\n".join(texts)))
    assert len(names) > 6
    assert {name.lower() for name in names} <= set(Settings.model_fields)


def test_the_times_and_sizes_in_these_files_fit_the_defaults():
    settings = {name: field.default for name, field in Settings.model_fields.items()}
    nginx, unit = ((DEPLOY / name).read_text("utf-8") for name in ("nginx.conf", "costbank.service"))
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]["costbank"]
    assert int(re.findall(r"proxy_read_timeout (\d+)s", nginx)[0]) > settings["timeout_s"]
    assert int(re.findall(r"client_max_body_size (\d+)m", nginx)[0]) * 1_024 == settings["max_body_kb"]
    kept = int(re.findall(r"keepalive_timeout (\d+)s", nginx)[0])
    assert kept < int(re.findall(r"KEEP_ALIVE_S=(\d+)", unit)[0])
    assert kept < int(compose["environment"]["COSTBANK_KEEP_ALIVE_S"])
    assert int(re.findall(r"TimeoutStopSec=(\d+)", unit)[0]) > settings["drain_s"]
    assert int(compose["stop_grace_period"].removesuffix("s")) > settings["drain_s"]
    assert int(re.findall(r"MemoryMax=(\d+)G", unit)[0]) * 1_024 > settings["max_memory_mb"] + 1_024
    gigabytes, tables = (
        int(compose["mem_limit"].removesuffix("g")),
        int(compose["environment"]["COSTBANK_MAX_MEMORY_MB"]),
    )
    assert gigabytes * 1_024 > tables + 1_024
    assert (DEPLOY / compose["build"]["context"]).resolve() == ROOT
    assert (ROOT / compose["build"]["dockerfile"]).is_file()


@pytest.mark.slow
def test_the_paths_that_the_image_copies_are_enough_to_install_from(tmp_path: Path):
    lines = (DEPLOY / "Dockerfile").read_text("utf-8").splitlines()
    for line in lines:
        if line.startswith("COPY "):
            *sources, target = line.split()[1:]
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / source, tmp_path / target)
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    names = ZipFile(next((tmp_path / "dist").glob("*.whl"))).namelist()
    assert {name.split("/")[0] for name in names} >= {"costbank", "costbank_cli", "costbank_service"}


def test_systemd_takes_the_unit(tmp_path: Path):
    if not (analyze := shutil.which("systemd-analyze")):
        pytest.skip("systemd is not installed")
    unit = (DEPLOY / "costbank.service").read_text("utf-8").replace("/opt/costbank/bin/costbank", sys.executable)

    def complaints(text: str) -> list[str]:
        (tmp_path / "costbank.service").write_text(text, "utf-8")
        command = [analyze, "verify", "--man=no", str(tmp_path / "costbank.service")]
        checked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return [line for line in checked.stderr.splitlines() if "costbank.service" in line]

    assert complaints(unit) == []
    assert complaints(unit.replace("[Service]", "[Service]\nNonsense=1")) != []
