"""Requests that are not valid HTTP, sent over real sockets."""

import json
import socket
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from costbank_service import Settings, serving
from costbank_service.protocol import ProblemProtocol

END = b" HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def address(byte_bank) -> Iterator[tuple[str, int]]:
    with serving(Settings(store=byte_bank.path.parents[1], port=0)) as url:
        host, port = url.removeprefix("http://").split(":")
        yield host, int(port)


def _exchange(address: tuple[str, int], request: bytes) -> bytes:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65_536):
            answer += data
    return answer


def _problem(answer: bytes) -> dict:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert f"content-length: {len(body)}".encode() in head
    problem = json.loads(body)
    assert int(head.split()[1]) == problem["status"]
    return problem


ENCODING, LENGTH, HEADER = "percent-encode", "Content-Length once", "a colon and a value"


@pytest.mark.parametrize(
    ("request_bytes", "hint"),
    [
        (b"GARBAGE\r\n\r\n", ENCODING),
        (b"GET\r\n\r\n", ENCODING),
        (b"GET  /livez" + END, ENCODING),
        (b"GET /a b" + END, ENCODING),
        ("GET /v1/banks/bytes/nearest?token=王".encode() + END, ENCODING),
        (b"GET /v1/banks/\xff" + END, ENCODING),
        (b"GET /livez" + b" HTTP/1.1\r\n\r\n", "send a Host header"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", HEADER),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nbad name: 1\r\n\r\n", HEADER),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n", HEADER),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", LENGTH),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", LENGTH),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: rot13\r\n\r\n", HEADER),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello of TLS\r\n\r\n", ENCODING),
    ],
)
@pytest.mark.skipif(find_spec("httptools") is not None, reason="what is malformed is for h11 to say here")
def test_a_malformed_request_is_a_problem(address: tuple[str, int], request_bytes: bytes, hint: str):
    problem = _problem(_exchange(address, request_bytes))
    assert (problem["status"], problem["code"]) == (400, "malformed-request")
    assert problem["detail"].startswith("this is not a valid HTTP request: ")
    assert hint in problem["hint"]
    assert "bytearray" not in problem["detail"]
    assert "b'" not in problem["detail"]


def test_garbage_is_a_problem_whichever_parser_reads_it(address: tuple[str, int]):
    assert _problem(_exchange(address, b"GARBAGE\r\n\r\n"))["code"] == "malformed-request"
    assert ProblemProtocol.__mro__[1].__name__ in ("H11Protocol", "HttpToolsProtocol")


def test_a_good_request_before_a_malformed_one_is_answered(address: tuple[str, int]):
    answer = _exchange(address, b"GET /livez" + END + b"GARBAGE\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") <= 2
    assert answer.startswith(b"HTTP/1.1 200 OK" if find_spec("httptools") is None else b"HTTP/1.1 ")
    assert answer.rstrip().endswith(b"}")


def test_a_header_without_an_end_is_refused(address: tuple[str, int]):
    if find_spec("httptools") is not None:
        pytest.skip("httptools has no limit")
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nA: ")
        for _ in range(64):
            try:
                connection.sendall(b"a" * 4_096)
            except OSError:
                break
        connection.settimeout(10)
        try:
            answer = connection.recv(65_536)
        except ConnectionResetError:
            return  # the connection broke first, because bytes were sent after the answer
    assert _problem(answer)["status"] == 431


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET http://x/livez", 200),
        (b"GET /livez/", 200),
        (b"GET /v1/banks/bytes/nearest?token=%E4%BD", 200),
        (b"HEAD /v1/banks", 200),
        (b"GET /v1/banks/bytes%2Fnearest?token=a", 400),
        (b"GET /v1/banks/bytes%2Fnearest", 404),
        (b"GET /v1/banks/%FF", 404),
        (b"GET /v1/nothing", 404),
        (b"OPTIONS *", 404),
        (b"DELETE /v1/banks", 405),
        (b"PATCH /livez", 405),
    ],
)
def test_unusual_valid_requests_reach_the_routes(address, request_line: bytes, status: int):
    answer = _exchange(address, request_line + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert int(answer.split()[1]) == status
    if status >= 400:
        assert _problem(answer)["detail"]
    if status == 405:
        assert b"allow: GET, HEAD" in answer


def test_no_path_of_the_machine_is_in_any_of_these(address, byte_bank):
    for request in (b"GARBAGE\r\n\r\n", b"GET /v1/banks/nothing HTTP/1.0\r\n\r\n", b"GET /%FF HTTP/1.0\r\n\r\n"):
        assert str(Path(byte_bank.path).parents[1]).encode() not in _exchange(address, request)
