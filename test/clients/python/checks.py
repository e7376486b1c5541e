"""The official Python SDK through a gateway, unchanged but for the address. Prints what fails, and a count at the end."""

import asyncio
import inspect
import json
import os
import subprocess
import sys
import time
import traceback
import urllib.request

import openai

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")
TEXT = "Hello there!"


class Gateway:
    """The gateway under test, and a client of either kind for it."""

    def __init__(self, url, admin_url):
        self.base_url = url + "/v1"
        self.admin_url = admin_url
        self.clients = []

    def client(self, kind, retries=0):
        self.clients.append(kind(base_url=self.base_url, api_key="sk-none", max_retries=retries))
        return self.clients[-1]

    async def run(self, check, kind):
        try:
            await check(self, kind)
        finally:
            while self.clients:
                await done(self.clients.pop().close())

    def in_flight(self):
        with urllib.request.urlopen(self.admin_url + "/paceline/status") as answer:
            return json.load(answer)["inFlight"]

    def falls_idle(self, within_s=5):
        until = time.monotonic() + within_s
        while self.in_flight() > 0:
            assert time.monotonic() < until, f"{self.in_flight()} requests still in flight"
            time.sleep(0.01)


def wish(**wanted):
    return [{"role": "user", "content": json.dumps(wanted)}]


async def done(value):
    """A result of either client."""
    return await value if inspect.isawaitable(value) else value


async def pieces_of(stream, enough=None):
    """Text of a stream of either client piece by piece, and its usage."""
    pieces, usage = [], None

    def take(chunk):
        nonlocal usage
        usage = chunk.usage or usage
        pieces.extend(choice.delta.content for choice in chunk.choices if choice.delta.content)
        return enough is not None and len(pieces) >= enough

    if hasattr(stream, "__aiter__"):
        async for chunk in stream:
            if take(chunk):
                break
    else:
        for chunk in stream:
            if take(chunk):
                break
    return pieces, usage


async def has_its_answer_and_what_it_used(gateway, kind):
    answer = await done(gateway.client(kind).chat.completions.create(model="m", messages=wish()))
    assert answer.choices[0].message.content == TEXT
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (9, 3)


async def has_a_stream_piece_by_piece_without_the_usage_that_it_did_not_ask_for(gateway, kind):
    stream = await done(gateway.client(kind).chat.completions.create(model="m", messages=wish(), stream=True))
    assert await pieces_of(stream) == (["Hello", " there", "!"], None)


async def has_the_usage_of_a_stream_that_it_asked_for(gateway, kind):
    stream = await done(gateway.client(kind).chat.completions.create(model="m", messages=wish(), stream=True, stream_options={"include_usage": True}))
    pieces, usage = await pieces_of(stream)
    assert "".join(pieces) == TEXT and usage.completion_tokens == 3


async def has_its_embeddings(gateway, kind):
    answer = await done(gateway.client(kind).embeddings.create(model="m", input=["a", "b"]))
    assert [item.embedding for item in answer.data] == [[1, 2], [3, 4]]


async def sees_the_models(gateway, kind):
    client = gateway.client(kind)
    assert [model.id for model in (await done(client.models.list())).data] == ["m"]
    assert (await done(client.models.retrieve("m"))).id == "m"


async def raises_its_own_error_with_the_servers_message(gateway, kind):
    try:
        await done(gateway.client(kind).chat.completions.create(model="m", messages=wish(status=400, message="max_tokens is too large")))
    except openai.BadRequestError as error:
        assert "max_tokens is too large" in str(error)
    else:
        raise AssertionError("no error")


async def raises_its_own_error_for_an_unknown_model(gateway, kind):
    try:
        await done(gateway.client(kind).chat.completions.create(model="other", messages=wish()))
    except openai.NotFoundError as error:
        assert error.code == "model_not_found"
    else:
        raise AssertionError("no error")


async def raises_where_the_server_breaks_off_in_a_stream(gateway, kind):
    try:
        await pieces_of(await done(gateway.client(kind).chat.completions.create(model="m", messages=wish(breakOff=True), stream=True)))
    except openai.APIError as error:
        assert "in the middle of its answer" in str(error)
    else:
        raise AssertionError("no error")


async def that_leaves_a_stream_frees_its_place(gateway, kind):
    stream = await done(gateway.client(kind).chat.completions.create(model="m", messages=wish(stall=True), stream=True))
    await pieces_of(stream, enough=1)
    assert gateway.in_flight() == 1
    await done(stream.close())
    gateway.falls_idle()


async def comes_back_soon_where_it_is_told_to(gateway, kind):
    started = time.monotonic()
    wanted = wish(name=f"soon {kind.__name__}", refuse=2, headers={"retry-after-ms": "5", "x-should-retry": "true"})
    answer = await done(gateway.client(kind, retries=2).chat.completions.create(model="m", messages=wanted))
    assert answer.choices[0].message.content == TEXT
    # By its own measure it waits half a second and a second.
    assert time.monotonic() - started < 1


async def does_not_come_back_where_it_is_told_not_to(gateway, kind):
    wanted = wish(name=f"never {kind.__name__}", refuse=1, headers={"x-should-retry": "false"})
    try:
        await done(gateway.client(kind, retries=2).chat.completions.create(model="m", messages=wanted))
    except openai.RateLimitError as error:
        assert "refused for the 1. time" in str(error)
    else:
        raise AssertionError("it came back")


CHECKS = [
    has_its_answer_and_what_it_used,
    has_a_stream_piece_by_piece_without_the_usage_that_it_did_not_ask_for,
    has_the_usage_of_a_stream_that_it_asked_for,
    has_its_embeddings,
    sees_the_models,
    raises_its_own_error_with_the_servers_message,
    raises_its_own_error_for_an_unknown_model,
    raises_where_the_server_breaks_off_in_a_stream,
    that_leaves_a_stream_frees_its_place,
    comes_back_soon_where_it_is_told_to,
    does_not_come_back_where_it_is_told_not_to,
]


def main():
    node = os.path.join(ROOT, "node_modules", ".bin", "node")
    server = subprocess.Popen([node, "test/clients/python/server.ts"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    passed, failed = 0, 0
    try:
        addresses = json.loads(server.stdout.readline())
        gateway = Gateway(addresses["url"], addresses["adminUrl"])
        for kind in (openai.OpenAI, openai.AsyncOpenAI):
            for check in CHECKS:
                try:
                    asyncio.run(asyncio.wait_for(gateway.run(check, kind), 30))
                    passed += 1
                except Exception:
                    failed += 1
                    print(f"{kind.__name__} {check.__name__}:", file=sys.stderr)
                    traceback.print_exc()
    finally:
        server.stdin.close()
        if server.wait(timeout=10) != 0:
            failed += 1
            print(f"the gateway ended with {server.returncode}", file=sys.stderr)
    print(f"openai {openai.__version__} (Python): {passed} passed, {failed} failed")
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
