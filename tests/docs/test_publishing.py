"""Publishing from anywhere: the guide's programs and the examples, as programs of their own, on a real server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import hubbub
from commands import clean_environment
from hubbub import Hub, Publisher, RoomRules
from hubbub.testing import MemoryClient, connect
from places import ROOT
from started_hub import until
from valkey_server import fresh_prefix, server_url

pytestmark = pytest.mark.anyio

WORKER = ("--concurrency", "2", "--without-mingle", "--without-gossip", "--without-heartbeat")
EXAMPLES = ROOT / "examples" / "publishing"


@asynccontextmanager
async def running() -> AsyncIterator[tuple[str, MemoryClient]]:
    """Run a hub with a user in a room that remembers; also the URL of its broker."""
    url = f"{server_url()}?prefix={fresh_prefix()}"
    hub = Hub(broker=url, room_rules=[RoomRules("chat:*", history=10)])
    await hub.start()
    try:
        ann = connect(hub, user="ann")
        await ann.client.subscribe("chat:1")
        yield url, ann
    finally:
        await hub.stop()


async def run(*command: str, broker: str, folder: Path = EXAMPLES) -> None:
    environment = {**clean_environment(), "HUBBUB_BROKER": broker}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 50)
    assert process.returncode == 0, output.decode()


async def test_the_program_of_the_guide(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as (url, ann):
        monkeypatch.setattr(hubbub, "Publisher", lambda _: Publisher(url), raising=False)
        await asyncio.to_thread(lambda: load("docs/guides/publishing.md", "publishing.py"))
        told = [{"text": "from a script"}, {"text": "your parcel is here"}]
        await until(lambda: ann.json() == told)


async def test_a_cron_job() -> None:
    async with running() as (url, ann):
        await run(sys.executable, "nightly.py", "chat:1", "The night was quiet", broker=url)
        await until(lambda: ann.json() == [{"text": "The night was quiet"}])


def test_a_cron_job_without_a_broker_says_which_variable_is_unset() -> None:
    done = subprocess.run(
        [sys.executable, "nightly.py", "news", "The night was quiet"],
        cwd=EXAMPLES,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith("not published: ")
    assert "HUBBUB_BROKER is not set" in done.stderr


async def test_a_management_command_of_django() -> None:
    async with running() as (url, ann):
        settings = ("--settings", "shop.settings", "--pythonpath", ".")
        arguments = ("notify", *settings, "--user", "ann", "Your parcel is here")
        await run(sys.executable, "-m", "django", *arguments, broker=url)
        await until(lambda: ann.json() == [{"text": "Your parcel is here"}])


async def test_a_task_of_celery_reports_once() -> None:
    queue = f"hubbub-{os.getpid()}"
    celery_url = server_url().replace("valkey://", "redis://") + "/9"
    async with running() as (url, ann):
        environment = {
            **clean_environment(),
            "HUBBUB_BROKER": url,
            "CELERY_BROKER": celery_url,
        }
        celery = (sys.executable, "-m", "celery", "-A", "tasks")
        options: Any = {"cwd": EXAMPLES, "env": environment, "stderr": subprocess.STDOUT}
        worker = await asyncio.create_subprocess_exec(
            *celery, "worker", *WORKER, "--queues", queue, stdout=subprocess.PIPE, **options
        )
        try:
            for text in ("first", "second"):
                call = await asyncio.create_subprocess_exec(
                    *(*celery, "call", "tasks.report", "--queue", queue),
                    *("--args", f'["chat:1", "{text}"]'),
                    stdout=subprocess.PIPE,
                    **options,
                )
                output, _ = await asyncio.wait_for(call.communicate(), 50)
                assert call.returncode == 0, output.decode()
            wanted = [{"report": "first"}, {"report": "second"}]
            await until(lambda: sorted(ann.json(), key=str) == wanted)
        finally:
            worker.send_signal(signal.SIGTERM)
            await asyncio.wait_for(worker.communicate(), 50)
