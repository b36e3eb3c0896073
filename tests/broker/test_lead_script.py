"""`lead.lua` through `Leadership`."""

from __future__ import annotations

import asyncio
from typing import Any

from taskq.broker.leadership import LeaderRecord
from tests.support.scripts import About, Kept, Scene

DAY = 86_400_000


def record(owner: str | None, term: int, beat: int, scene: Scene) -> Kept:
    fields: dict[str, Any] = {"t": str(term).encode(), "b": str(beat).encode()}
    if owner is not None:
        fields["o"] = owner.encode()
    state = scene.state()["leader"]
    for name in ("s", "h"):
        fields[name] = state.value[name]
        assert int(fields[name]) == scene.about_now()
    return Kept(fields, About(DAY))


async def elected(scene: Scene, name: str) -> LeaderRecord:
    return await scene.leadership.take(name, await scene.leadership.look())


async def test_a_look_writes_nothing(scene: Scene) -> None:
    seen = await scene.leadership.look()

    assert (seen.owner, seen.term, seen.since) == (None, 0, None)
    assert scene.state() == {}


async def test_who_takes_a_free_office_begins_the_first_term(scene: Scene) -> None:
    taken = await elected(scene, "a")

    assert (taken.owner, taken.term) == ("a", 1)
    assert scene.state() == {"leader": record("a", 1, 0, scene)}


async def test_of_many_candidates_one_wins(scene: Scene) -> None:
    seen = await scene.leadership.look()

    answers = await asyncio.gather(
        *(scene.leadership.take(name, seen) for name in ("a", "b", "c", "d"))
    )

    assert {(answer.owner, answer.term) for answer in answers} == {("a", 1)}


async def test_a_silent_leader_is_replaced_by_who_saw_its_last_beat(scene: Scene) -> None:
    await elected(scene, "a")
    seen = await scene.leadership.look()

    taken = await scene.leadership.take("b", seen)

    assert (taken.owner, taken.term) == ("b", 2)
    assert scene.state() == {"leader": record("b", 2, 0, scene)}


async def test_a_leader_that_has_beaten_since_is_not_replaced(scene: Scene) -> None:
    await elected(scene, "a")
    seen = await scene.leadership.look()
    assert await scene.leadership.renew("a", 1)
    before = scene.state()

    assert (await scene.leadership.take("b", seen)).owner == "a"

    assert scene.state() == before


async def test_a_renewal_moves_the_beat_and_nothing_else(scene: Scene) -> None:
    await elected(scene, "a")

    assert await scene.leadership.renew("a", 1)

    assert scene.state() == {"leader": record("a", 1, 1, scene)}


async def test_who_does_not_lead_can_neither_renew_nor_resign(scene: Scene) -> None:
    await elected(scene, "a")
    before, listener = scene.state(), scene.listen()

    assert not await scene.leadership.renew("b", 1)
    assert not await scene.leadership.renew("a", 2)
    assert not await scene.leadership.resign("b", 1)
    assert not await scene.leadership.resign("a", 0)

    assert scene.state() == before
    assert listener.messages() == []


async def test_a_resignation_frees_the_office_and_is_heard(scene: Scene) -> None:
    await elected(scene, "a")
    listener = scene.listen()

    assert await scene.leadership.resign("a", 1)

    assert scene.state() == {"leader": record(None, 1, 0, scene)}
    assert listener.messages() == [("lead", b"free")]
    # And the next term is another one
    assert (await elected(scene, "a")).term == 2


async def test_a_late_resignation_does_not_end_the_next_term(scene: Scene) -> None:
    await elected(scene, "a")
    await scene.leadership.resign("a", 1)
    await elected(scene, "a")

    assert not await scene.leadership.resign("a", 1)

    assert (await scene.leadership.look()).owner == "a"


async def test_a_leader_renews_on_a_full_server(alone: Scene) -> None:
    await elected(alone, "a")
    alone.look.config_set("maxmemory", 1)

    assert await alone.leadership.renew("a", 1)
    seen = await alone.leadership.look()
    assert (await alone.leadership.take("b", seen)).owner == "b"
