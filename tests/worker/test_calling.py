"""Asking for a run: by function, by name, one by one and by the thousand."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
import redis

from taskq import CallError, ConfigError, EncodeError, JobState, PayloadTooLarge, TaskQ
from taskq.broker.keys import Keys
from tests.support.server import TestServer


def jobs_stored(look: redis.Redis, namespace: str) -> int:
    return len(list(look.scan_iter(match=f"{Keys(namespace).jobs}*", count=1000)))


def script_calls(look: redis.Redis) -> int:
    """How many scripts this server has run."""
    stats = look.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


async def test_a_task_is_still_the_function_it_was_made_of(q: TaskQ) -> None:
    @q.task(name="double")
    async def double(number: int) -> int:
        """Twice the number."""
        return 2 * number

    @q.task(name="half")
    def half(number: int) -> int:
        return number // 2

    # Called, they run here and now: no server, no worker
    assert await double(21) == 42
    assert half(42) == 21

    # They keep what says who they are
    assert double.__doc__ == "Twice the number."
    assert vars(double)["__name__"] == "double"
    assert double.name == "double"
    assert repr(half) == "<task half>"


async def test_a_task_is_named_after_its_module_and_function(q: TaskQ) -> None:
    @q.task
    async def resize() -> None: ...

    assert resize.name == (f"{__name__}.test_a_task_is_named_after_its_module_and_function.resize")


async def test_a_job_carries_its_arguments(q: TaskQ) -> None:
    @q.task(name="join")
    async def join(*parts: str, sep: str = " ", **more: str) -> str:
        return sep.join([*parts, *more.values()])

    job = await join.enqueue("a", "b", sep="-", last="c")
    info = await job.info()

    assert (info.task, info.args, info.kwargs) == ("join", ("a", "b"), {"sep": "-", "last": "c"})
    assert info.state is JobState.QUEUED

    await q.run_until_empty()
    assert await job.result(timeout=5) == "a-b-c"


@pytest.mark.parametrize(
    ("args", "kwargs", "reason"),
    [
        ((), {}, "missing a required argument: 'path'"),
        (("a.png", 1, 2), {}, "too many positional arguments"),
        (("a.png",), {"wdth": 400}, "unexpected keyword argument 'wdth'"),
        (("a.png",), {"path": "b.png"}, "multiple values for argument 'path'"),
    ],
)
async def test_a_call_that_does_not_fit_the_signature_is_refused_where_it_is_made(
    q: TaskQ,
    look: redis.Redis,
    namespace: str,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    reason: str,
) -> None:
    @q.task(name="resize")
    async def resize(path: str, width: int = 800) -> str:
        return path

    with pytest.raises(CallError) as caught:
        await resize.enqueue(*args, **kwargs)  # type: ignore[arg-type]

    # Then the message shows the signature, it is a TypeError as a call's would be
    assert "resize(path: 'str', width: 'int' = 800) -> 'str' cannot be called" in str(caught.value)
    assert reason in str(caught.value)
    assert isinstance(caught.value, TypeError)
    # And nothing was enqueued
    assert jobs_stored(look, namespace) == 0


async def test_signatures_are_checked_before_any_of_them_is_enqueued(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    @q.task(name="one")
    async def one(number: int) -> int:
        return number

    with pytest.raises(CallError):
        await q.enqueue_many([one.s(1), one.s(2), one.s()])
    with pytest.raises(EncodeError, match=r"args\[0\]"):
        await q.enqueue_many([one.s(1), one.s(object())])

    assert jobs_stored(look, namespace) == 0


async def test_signatures_of_another_taskq_are_refused_with_what_to_type(
    q: TaskQ, server: TestServer, look: redis.Redis, namespace: str
) -> None:
    @q.task(name="one")
    async def one() -> None: ...

    # Given a task of another TaskQ, in a namespace of its own
    foreign = TaskQ(server.url, namespace=f"{namespace}x")

    @foreign.task(name="app.two")
    async def two() -> None: ...

    # When it is enqueued here
    with pytest.raises(ConfigError) as caught:
        await q.enqueue_many([one.s(), two.options(priority=9).s()])

    # Then nothing is, in either of them: nobody would run it, and its own TaskQ not know it
    assert "app.two belongs to another TaskQ" in str(caught.value)
    assert "q.remote('app.two').s(...)" in str(caught.value)
    assert jobs_stored(look, namespace) == jobs_stored(look, f"{namespace}x") == 0


async def test_a_value_that_cannot_travel_is_named_by_its_path(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    @q.task(name="store")
    async def store(*args: object, **kwargs: object) -> None: ...

    with pytest.raises(EncodeError, match=r"args\[0\]\['sizes'\]\[2\]"):
        await store.enqueue({"sizes": [1, 2, object()]})
    with pytest.raises(EncodeError, match=r"picture\[1\]"):
        await store.enqueue(picture=[1, lambda: None])
    with pytest.raises(PayloadTooLarge, match="1,048,576"):
        await store.enqueue("x" * 1_100_000)

    assert jobs_stored(look, namespace) == 0


async def test_a_thousand_enqueues_of_one_turn_travel_as_a_few_script_calls(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    @q.task(name="square")
    async def square(number: int) -> int:
        return number * number

    await square.enqueue(0)
    before = script_calls(look)

    jobs = await asyncio.gather(*(square.enqueue(number) for number in range(1000)))

    # Then nobody had to ask for batches
    assert script_calls(look) - before <= 4
    assert len({job.id for job in jobs}) == 1000
    assert jobs_stored(look, namespace) == 1001
    await q.run_until_empty()
    results = await asyncio.gather(*(job.result(timeout=10) for job in jobs))
    assert results == [number * number for number in range(1000)]


async def test_enqueue_many_gives_handles_in_the_order_of_its_signatures(
    q: TaskQ, look: redis.Redis
) -> None:
    @q.task(name="square")
    async def square(number: int) -> int:
        return number * number

    @q.task(name="shout")
    async def shout(text: str) -> str:
        return text.upper()

    before = script_calls(look)
    jobs = await q.enqueue_many(square.s(number) for number in range(1200))
    mixed = await q.enqueue_many([shout.s("a"), shout.options(priority=9).s("b")])

    assert script_calls(look) - before <= 5
    assert all(job.created for job in jobs)
    await q.run_until_empty()
    assert [await job.result(timeout=5) for job in jobs[::100]] == [
        number * number for number in range(0, 1200, 100)
    ]
    assert [await job.result(timeout=5) for job in mixed] == ["A", "B"]


async def test_what_is_no_signature_is_refused_with_what_to_type(q: TaskQ) -> None:
    @q.task(name="add")
    async def add(a: int, b: int) -> int:
        return a + b

    for given, said in (
        (
            [add.s(1, 2), add.enqueue(1, 2)],
            "got a coroutine, as returned by add(1, 2) and add.enqueue(1, 2)",
        ),
        ([add], "got the task add without arguments"),
        ([add(1, 2)], "got a coroutine"),
        ([3], "takes signatures, but got 3"),
        (add.s(1, 2), "takes a list, but got a single one"),
        (add, "takes a list, but got the task add"),
        (5, "takes a list, but got 5"),
    ):
        with pytest.raises(CallError, match=r"use enqueue_many\(\[add\.s\(1, 2\), ") as caught:
            await q.enqueue_many(given)
        assert said in str(caught.value)
    assert await q.enqueue_many(add.s(n, n) for n in range(0)) == []


async def test_enqueue_many_of_nothing_asks_the_server_nothing(q: TaskQ, look: redis.Redis) -> None:
    before = script_calls(look)

    assert await q.enqueue_many([]) == []
    assert script_calls(look) == before


async def test_jobs_of_one_queue_and_priority_start_in_the_order_they_came(q: TaskQ) -> None:
    order: list[int] = []

    @q.task(name="note")
    async def note(number: int) -> None:
        order.append(number)

    await asyncio.gather(*(note.enqueue(number) for number in range(20)))
    await q.enqueue_many([note.s(number) for number in range(20, 40)])
    await q.run_until_empty(concurrency=1)

    assert order == list(range(40))


async def test_a_signature_can_be_enqueued_by_itself(q: TaskQ) -> None:
    @q.task(name="greet")
    async def greet(name: str, greeting: str = "Hello") -> str:
        return f"{greeting}, {name}"

    signature = greet.s("Ada", greeting="Good day").options(queue="polite", priority=7)
    jobs = [await signature.enqueue(), await signature.enqueue()]

    # Then each is a job of its own, with those options
    assert jobs[0].id != jobs[1].id
    info = await jobs[0].info()
    assert (info.queue, info.priority) == ("polite", 7)
    await q.run_until_empty(["polite"])
    assert [await job.result(timeout=5) for job in jobs] == ["Good day, Ada"] * 2


async def test_a_producer_need_not_import_the_code(q: TaskQ, other: TaskQ) -> None:
    @q.task(name="app.tasks.resize")
    async def resize(path: str, width: int = 800) -> str:
        return f"{path}-{width}"

    # Given another program, which knows the task's name only
    job = await other.send("app.tasks.resize", "a.png", width=400)
    later = (
        await other.remote("app.tasks.resize")
        .options(id="img:b", headers={"by": "b"})
        .enqueue("b.png")
    )

    await q.run_until_empty()
    assert await job.result(timeout=5) == "a.png-400"
    assert await later.result(timeout=5) == "b.png-800"
    assert later.id == "img:b"


async def test_arguments_sent_by_name_are_checked_by_the_worker(q: TaskQ, other: TaskQ) -> None:
    @q.task(name="resize", retry=3)
    async def resize(path: str) -> str:
        return path

    @q.task(name="shrink", retry=3)
    def shrink(path: str) -> str:
        return path

    jobs = [await other.send("resize", "a.png", wdth=400), await other.send("shrink")]
    await q.run_until_empty()

    # Then they fail, and are not tried again: another attempt would meet the same arguments
    infos = [await job.info() for job in jobs]
    assert [info.state for info in infos] == [JobState.FAILED, JobState.FAILED]
    assert [info.attempt for info in infos] == [1, 1]
    assert [info.attempts[0].outcome for info in infos] == ["unfit_arguments", "unfit_arguments"]
    assert "resize(path: 'str') -> 'str' cannot be called like this" in (infos[0].error or "")
    assert "missing a required argument: 'path'" in (infos[1].error or "")


async def test_a_task_known_here_is_sent_with_its_own_options(q: TaskQ) -> None:
    @q.task(name="resize", queue="images", priority=8)
    async def resize(path: str) -> str:
        return path

    job = await q.send("resize", "a.png")

    info = await job.info()
    assert (info.queue, info.priority) == ("images", 8)
    with pytest.raises(CallError):
        await q.send("resize")
    await q.run_until_empty()


def test_what_is_no_url_is_refused_where_it_is_given() -> None:
    for wrong in (5, b"redis://localhost", Path("/run/valkey.sock")):
        with pytest.raises(ConfigError, match=r"use TaskQ\('redis://localhost:6379/0'\)"):
            TaskQ(wrong)


@pytest.mark.parametrize("name", ["name", "self", "function", "fn", "args", "kwargs", "options"])
async def test_arguments_may_have_any_name(q: TaskQ, name: str) -> None:
    @q.task(name="names")
    async def names(**given: int) -> list[str]:
        return list(given)

    given = {name: 1}
    jobs = [
        await q.send("names", **given),
        await names.enqueue(**given),
        await names.options(priority=9).enqueue(**given),
        *await q.enqueue_many([names.s(**given), names.options(priority=9).s(**given)]),
    ]
    deferred = [
        names.defer(**given),
        names.options(timeout=5).defer(**given),
        q.defer(names.function, **given),
    ]

    await q.run_until_empty()
    assert [await job.result(timeout=5) for job in jobs] == [[name]] * 5
    assert [await handle.result() for handle in deferred] == [[name]] * 3
    assert await names(**given) == [name]


async def test_names_that_cannot_be_keys_are_refused(q: TaskQ) -> None:
    with pytest.raises(ConfigError, match="A-Z a-z 0-9"):
        await q.send("app tasks")
    with pytest.raises(ConfigError, match="job id"):
        q.job("{other}:j:1")


async def test_one_taskq_serves_many_programs_of_one_namespace_and_none_of_another(
    q: TaskQ, server: TestServer
) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    job = await one.enqueue()
    elsewhere = TaskQ(server.url, namespace="elsewhere")
    elsewhere.task(name="one")(one.function)

    assert await elsewhere.run_until_empty() == 0
    assert await q.run_until_empty() == 1
    assert await job.result(timeout=5) == 1
    await elsewhere.aclose()


async def test_nothing_is_imported_because_a_message_names_it(q: TaskQ, other: TaskQ) -> None:
    @q.task(name="known")
    async def known() -> None: ...

    before = set(sys.modules)
    for name in ("antigravity.fly", "os:system", "this"):
        await other.send(name)

    await q.run_until_empty(unknown_limit=1)

    assert not {"antigravity", "this"} & (set(sys.modules) - before)


async def test_what_is_stored_of_a_job_is_data(q: TaskQ, look: redis.Redis, namespace: str) -> None:
    @q.task(name="one")
    async def one(text: str) -> str:
        return text

    job = await one.enqueue(json.dumps({"a": 1}))

    stored = look.hgetall(Keys(namespace).job(job.id))
    assert set(stored) == {b"e", b"s", b"q", b"t"}
    assert '{"a": 1}' in str(stored[b"e"])
    await q.run_until_empty()


async def test_where_the_server_is_may_come_from_the_environment(
    server: TestServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKQ_URL", server.url)

    async with TaskQ(namespace=namespace) as q:

        @q.task(name="one")
        async def one() -> int:
            return 1

        job = await one.enqueue()
        await q.run_until_empty()
        assert await job.result(timeout=5) == 1
    # And what was closed opens again when it is used
    assert await job.result(timeout=5) == 1
    await q.aclose()
