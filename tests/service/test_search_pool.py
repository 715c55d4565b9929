"""The numbers of searches that run and wait."""

import asyncio
import threading

import pytest
from costbank_service import Settings, create_app
from costbank_service.search_pool import OverloadedError, SearchPool
from fastapi.testclient import TestClient


def test_a_bounded_number_of_searches_run_and_wait_and_others_are_refused_at_once():
    free, running = threading.Event(), []
    most = 0

    def search() -> int:
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        free.wait(10)
        running.pop()
        return 1

    async def ask() -> list:
        pool = SearchPool(threads=2, queue=3)
        tasks = [asyncio.create_task(pool.run(search)) for _ in range(9)]
        await asyncio.sleep(0.1)
        refused = [task for task in tasks if task.done()]
        free.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert len(refused) == 4
        assert await pool.run(lambda: 2) == 2
        pool.close()
        with pytest.raises(OverloadedError, match="shutting down"):
            await pool.run(lambda: 2)
        return answers

    answers = asyncio.run(ask())
    assert [answer for answer in answers if answer == 1] == [1] * 5
    assert sum(isinstance(answer, OverloadedError) for answer in answers) == 4
    assert most == 2


def test_a_failed_search_frees_its_slot():
    async def ask() -> None:
        pool = SearchPool(threads=1, queue=0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await pool.run(lambda: 1 // 0)
        pool.close()

    asyncio.run(ask())


def test_a_full_queue_is_answered_with_503_and_the_table_still_is(store, monkeypatch: pytest.MonkeyPatch):
    with TestClient(create_app(Settings(store=store, search_threads=1, search_queue=0))) as client:
        beyond, within = "/v1/banks/news/nearest?token_id=300&k=90", "/v1/banks/news/nearest?token_id=300&k=10"
        assert client.get(beyond).status_code == 200
        assert client.app.state.searches._slots.acquire(blocking=False)
        response = client.get(beyond)
        assert (response.status_code, response.json()["code"]) == (503, "overloaded")
        assert response.headers["retry-after"] == "1"
        assert client.get(within).status_code == 200
        client.app.state.searches._slots.release()
        assert client.get(beyond).status_code == 200


def test_answers_beyond_the_table_are_those_of_the_library(client: TestClient, news_bank):
    body = client.get("/v1/banks/news/nearest?token_id=300&k=100").json()
    assert body["exact"]
    assert body["neighbors"] == [vars(neighbor) for neighbor in news_bank.nearest(300, 100)]
