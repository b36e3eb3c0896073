"""`schedule_put.lua`, `schedule_read.lua`, `schedule_remove.lua` and `schedule_run.lua`."""

from __future__ import annotations

from typing import Any

import pytest

from taskq.broker.schedule_record import StoredSchedule
from taskq.broker.schedules import ChangedSchedule, ScheduleStore
from taskq.codec.signing import Signing
from tests.support.scripts import LANE, About, Lane, Scene

INF = float("inf")


def change(name: str = "s", **changes: Any) -> ChangedSchedule:
    given: dict[str, Any] = {
        "id": name, "expected": "", "revision": "r1", "spec": b"spec", "next": 5000, "paused": "",
    }  # fmt: skip
    return ChangedSchedule(**given | changes)


async def put(scene: Scene, *changes: ChangedSchedule) -> list[int]:
    return list(map(int, await scene.schedules.put(changes)))


# ----------------------------------------------------------------------------------------- put


async def test_a_new_schedule_is_stored_and_told(scene: Scene) -> None:
    listener = scene.listen()

    assert await put(scene, change()) == [1]

    state = scene.state()
    about = {name: int(state["schedule:s"].pop(name)) for name in ("a", "m")}
    assert about == {"a": scene.about_now(), "m": scene.about_now()}
    assert state == {
        "schedules": {"s": 5000},
        "schedule:s": {"v": b"r1", "s": b"spec", "n": b"5000"},
    }
    assert listener.messages() == [("schedule", b"changed")]


async def test_the_same_request_again_changes_nothing(scene: Scene) -> None:
    await put(scene, change())
    before, listener = scene.state(), scene.listen()

    assert await put(scene, change()) == [1]

    assert scene.state() == before
    assert listener.messages() == []


async def test_what_was_changed_meanwhile_is_left_as_it_is(scene: Scene) -> None:
    await put(scene, change())
    before = scene.state()

    other = change(revision="r2", spec=b"other")
    assert await put(scene, other, other._replace(expected="r0")) == [0, 0]

    assert scene.state() == before


async def test_a_change_keeps_counters_and_runs(scene: Scene) -> None:
    await put(scene, change())
    scene.look.hset(scene.keys.schedule_prefix + "s", mapping={"c": 7, "k": 2, "l": 4000, "j": "x"})

    assert await put(scene, change(expected="r1", revision="r2", spec=b"new", next=9000)) == [1]

    stored = (await scene.schedules.read(["s"])).found["s"]
    assert stored == StoredSchedule(
        id="s", revision="r2", spec=b"new", next=9000, last=4000, fired=7, skipped=2,
        running=("x",), added=stored.added, changed=stored.changed,
    )  # fmt: skip
    assert scene.state()["schedules"] == {"s": 9000}


async def test_a_paused_schedule_keeps_its_next_fire_and_is_not_due(scene: Scene) -> None:
    await put(scene, change())

    assert await put(scene, change(expected="r1", revision="r2", spec=None, paused="why")) == [1]

    stored = (await scene.schedules.read(["s"])).found["s"]
    assert (stored.spec, stored.next, stored.paused) == (b"spec", 5000, "why")
    assert scene.state()["schedules"] == {"s": INF}
    # And back again
    await put(scene, change(expected="r2", revision="r3", spec=None))
    assert scene.state()["schedules"] == {"s": 5000}
    assert (await scene.schedules.read(["s"])).found["s"].paused is None


async def test_whether_it_is_paused_because_it_cannot_be_computed_is_kept(scene: Scene) -> None:
    await put(scene, change(paused="why", broken=True))

    assert (await scene.schedules.read(["s"])).found["s"].broken
    await put(scene, change(expected="r1", revision="r2", paused="by hand"))
    assert not (await scene.schedules.read(["s"])).found["s"].broken
    assert "e" not in scene.state()["schedule:s"]


async def test_another_trigger_may_begin_before_the_last_fire(scene: Scene) -> None:
    await put(scene, change("a"), change("b"), change("c"))
    for name in ("a", "b", "c"):
        scene.look.hset(scene.keys.schedule_prefix + name, "l", 4000)

    await put(
        scene,
        change("a", expected="r1", revision="r2", next=3000, begins=True),
        # And here it does not
        change("b", expected="r1", revision="r2", next=4000, begins=True),
        change("c", expected="r1", revision="r2", next=3000),
    )

    begin = {name: scene.state()[f"schedule:{name}"].get("b") for name in ("a", "b", "c")}
    assert begin == {"a": b"3000", "b": None, "c": None}


async def test_each_of_many_is_judged_by_itself(scene: Scene) -> None:
    await put(scene, change("b"))

    assert await put(scene, change("a"), change("b", revision="r9"), change("c")) == [1, 0, 1]

    assert set(scene.state()["schedules"]) == {"a", "b", "c"}


# ---------------------------------------------------------------------------------------- read


async def test_schedules_are_listed_by_their_next_fire(scene: Scene) -> None:
    await put(scene, change("late", next=9), change("none", next=None), change("soon", next=2))

    look = await scene.schedules.page(0, 10)

    assert list(look.found) == ["soon", "late", "none"]
    assert (look.count, look.active, look.declared) == (3, 2, 0)
    assert About(scene.now()) == look.now
    assert list((await scene.schedules.page(1, 1)).found) == ["late"]
    assert (await scene.schedules.count()).found == {}


async def test_large_schedules_travel_in_calls_of_bounded_bytes(scene: Scene) -> None:
    names = [f"s{n}" for n in range(12)]
    send, sent = scene.client.script, []

    async def counting(script: Any, keys: tuple[str, ...], *args: Any) -> Any:
        sent.append(sum(len(arg) for arg in args if isinstance(arg, bytes)))
        return await send(script, keys, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene.client, "script", counting)
        await put(
            scene, *(change(name, spec=b"x" * 900_000, next=n) for n, name in enumerate(names))
        )
    with scene.measured() as replies:
        look = await scene.schedules.read([*names, "absent"])
        page = await scene.schedules.page(4, 12)

    assert sent == [3_600_000] * 3
    assert list(look.found) == names
    assert (look.looked, look.more) == (13, False)
    # A page ends where its bytes do
    assert (list(page.found), page.looked, page.more) == (names[4:8], 4, True)
    assert max(replies) < 4_194_304


async def test_only_the_ids_that_exist_are_found(scene: Scene) -> None:
    await put(scene, change("a"))

    assert set((await scene.schedules.read(["a", "b"])).found) == {"a"}


async def test_what_the_code_declares_is_listed(scene: Scene) -> None:
    await scene.schedules.declare({"a": "shop", "b": "mail"})
    await scene.schedules.declare({})
    assert (await scene.schedules.count()).declared == 2
    assert await scene.schedules.declared() == {"a": "shop", "b": "mail"}

    await scene.schedules.undeclare(["a", "b", "c"])
    await scene.schedules.undeclare([])
    assert scene.state() == {}


# -------------------------------------------------------------------------------------- remove


async def test_a_removed_schedule_leaves_nothing_and_is_told(scene: Scene) -> None:
    await put(scene, change())
    listener = scene.listen()

    assert await scene.schedules.remove(("s", "")) == [1]

    assert scene.state() == {}
    assert listener.messages() == [("schedule", b"changed")]
    assert await scene.schedules.remove(("s", "")) == [0]
    assert listener.messages() == []


async def test_a_schedule_is_removed_only_as_it_was_read(scene: Scene) -> None:
    await put(scene, change())
    before = scene.state()

    assert await scene.schedules.remove(("s", "r0")) == [-1]

    assert scene.state() == before


# ----------------------------------------------------------------------------------------- run


async def test_a_run_by_hand_is_a_job_and_the_next_fire_stays(scene: Scene) -> None:
    await put(scene, change())
    before = scene.state()

    assert await scene.schedules.run("s", "r1", "s:now", b"envelope", LANE, "")

    run = {"schedule:s": before["schedule:s"] | {"j": b"s:now"}}
    assert scene.state() == before | run | {
        "j:s:now": {"e": b"envelope", "s": "q", "q": LANE, "t": scene.about_now()},
        "q:default/5": Lane(waiting=["s:now"]),
        "lanes": {"default": "5"},
    }


async def test_the_same_run_again_makes_no_second_job(scene: Scene) -> None:
    await put(scene, change())
    await scene.schedules.run("s", "r1", "s:now", b"envelope", LANE, "")
    before = scene.state()

    assert await scene.schedules.run("s", "r1", "s:now", b"envelope", LANE, "")

    assert scene.state() == before


async def test_a_schedule_that_was_changed_is_not_run(scene: Scene) -> None:
    await put(scene, change())
    before = scene.state()

    assert not await scene.schedules.run("s", "r0", "s:now", b"envelope", LANE, "")
    assert not await scene.schedules.run("unknown", "r1", "s:now", b"envelope", LANE, "")

    assert scene.state() == before


# --------------------------------------------------------------------------------------- seals


@pytest.fixture
def sealing(scene: Scene) -> ScheduleStore:
    signing = Signing(scene.keys.namespace, ["0123456789" * 4])
    return ScheduleStore(scene.client, scene.keys, scene.offset, signing=signing)


async def test_a_sealed_schedule_is_read_by_who_has_the_key(
    scene: Scene, sealing: ScheduleStore
) -> None:
    await sealing.put([change()])

    assert (await sealing.read(["s"])).found["s"].spec == b"spec"
    assert scene.look.hget(scene.keys.schedule_prefix + "s", "s") != b"spec"


async def test_what_somebody_else_wrote_is_not_given(scene: Scene, sealing: ScheduleStore) -> None:
    # Given one that is not sealed, and one that was sealed for another id
    await scene.schedules.put([change("plain")])
    await sealing.put([change("mine")])
    stolen = scene.look.hget(scene.keys.schedule_prefix + "mine", "s")
    await scene.schedules.put([change("copy", spec=stolen)])

    found = (await sealing.read(["plain", "copy", "mine"])).found

    assert [found[name].spec for name in ("plain", "copy", "mine")] == [b"", b"", b"spec"]
    assert "not signed" in found["plain"].untrusted
    assert "the seal" in found["copy"].untrusted
