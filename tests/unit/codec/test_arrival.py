"""A value arrives equal to what was passed, or is refused where it is enqueued, with its path."""

from __future__ import annotations

import enum
import hashlib
import threading
import time
from collections import Counter, OrderedDict, defaultdict
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    computed_field,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass as model_dataclass

from taskq.codec.arrival_check import check_arrival
from taskq.codec.payload import decode_call, encode_call
from taskq.codec.rebuild import CallRebuilder
from taskq.codec.secret import Secret
from taskq.core.errors import CallError, EncodeError, TaskqError
from tests.support.names import steady_name

T = TypeVar("T")


@pytest.fixture(autouse=True)
def nothing_left_running() -> None:
    """Nothing is started here; the check would collect garbage after each of these many tests."""


def sent(annotation: Any, value: Any) -> Any:
    """What a function with this annotation gets of `value`; raises as an enqueue does."""

    def function(arg: Any) -> None: ...

    function.__annotations__["arg"] = annotation
    rebuilder = CallRebuilder.of(function)
    came: list[Any] = []
    for args, kwargs in (((value,), {}), ((), {"arg": value})):
        data = encode_call(
            args, kwargs, check=lambda *call: check_arrival(lambda: rebuilder, *call)
        )
        there = decode_call(data)
        given, named = there if rebuilder is None else rebuilder.apply(*there)
        came += [*given, *named.values()]
    assert type(came[0]) is type(came[1])
    return came[0]


def refused(annotation: Any, value: Any) -> str:
    with pytest.raises((EncodeError, CallError)) as caught:
        sent(annotation, value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------ classes


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1


class Doubling(BaseModel):
    price: int

    @field_validator("price")
    @classmethod
    def double(cls, price: int) -> int:
        return 2 * price


class Adding(BaseModel):
    total: int = 0

    @model_validator(mode="after")
    def add(self) -> Adding:
        self.total += 1
        return self


def hashed(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


class Hashing(BaseModel):
    password: Annotated[str, AfterValidator(hashed)]


class Splitting(BaseModel):
    tags: list[str]

    @field_validator("tags", mode="before")
    @classmethod
    def split(cls, text: str) -> list[str]:
        return text.split(",")


class Nested(BaseModel):
    one: Doubling
    many: list[Doubling]
    by_name: dict[str, Adding] = {}


class Patch(BaseModel):
    name: str = "x"
    color: Color = Color.RED
    maybe: int | None = None


class Private(BaseModel):
    name: str
    _seen: Color = PrivateAttr(default=Color.RED)
    _count: int = PrivateAttr(default=0)

    def model_post_init(self, _: Any) -> None:
        self._count += 1


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


class Aliased(BaseModel):
    is_admin: bool = Field(False, alias="x-internal-admin")
    name: str = Field("", validation_alias="Name")


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)
    count: int
    color: Color
    where: Path = Path()
    host: IPv4Address = IPv4Address("10.0.0.1")
    site: AnyUrl | None = None


class Computed(BaseModel):
    side: int

    @computed_field
    @property
    def area(self) -> int:
        return self.side**2

    @cached_property
    def lock(self) -> Any:
        return threading.Lock()


class Tree(BaseModel):
    value: Annotated[int, AfterValidator(lambda value: value + 1)]
    children: list[Tree] = []


class Page(BaseModel, Generic[T]):
    items: list[T]


@dataclass
class Scaling:
    x: int

    def __post_init__(self) -> None:
        self.x *= 10


@dataclass
class WithInit:
    x: int
    by: InitVar[int]
    product: int = field(init=False, default=0)

    def __post_init__(self, by: int) -> None:
        self.product = self.x * by


@dataclass(frozen=True, slots=True)
class Frozen:
    color: Color
    level: Level = Level.LOW
    at: datetime | None = None


@dataclass
class Computing:
    path: str
    parts: Any = field(init=False)

    def __post_init__(self) -> None:
        self.parts = threading.Lock() if self.path == "lock" else self.path.split("/")
        self.size = len(self.path)


@dataclass
class Pathy:
    path: Path
    data: bytearray = field(default_factory=bytearray)
    counts: Counter[str] = field(default_factory=Counter[str])


@dataclass
class Box(Generic[T]):
    content: T


@dataclass(eq=False)
class Unequal:
    color: Color


@dataclass
class Holder:
    inner: Frozen
    more: list[Scaling]


@dataclass
class Wider(Scaling):
    y: int = 0


@model_dataclass
class Checked:
    price: Annotated[int, AfterValidator(lambda price: price * 2)]
    color: Color = Color.RED


class Place(NamedTuple):
    name: str
    color: Color = Color.RED


class Options(TypedDict):
    color: Color


@dataclass
class And:
    left: Expr
    right: Expr


@dataclass
class Or:
    left: Expr
    right: Expr


@dataclass
class Xor:
    left: Expr
    right: Expr


Expr = And | Or | Xor | int


class MAnd(BaseModel):
    left: MExpr
    right: MExpr


class MOr(BaseModel):
    left: MExpr
    right: MExpr


class MXor(BaseModel):
    left: MExpr
    right: MExpr


MExpr = MAnd | MOr | MXor | int
for model in (MAnd, MOr, MXor):
    model.model_rebuild()


class TAnd(BaseModel):
    kind: Literal["and"] = "and"
    left: TExpr
    right: TExpr


class TOr(BaseModel):
    kind: Literal["or"] = "or"
    left: TExpr
    right: TExpr


TExpr = int | Annotated[TAnd | TOr, Field(discriminator="kind")]
for tagged in (TAnd, TOr):
    tagged.model_rebuild()

private = Private(name="a")
private._seen = Color.BLUE
changed = Computing("a/b")
changed.parts.append("c")


# ------------------------------------------------------------------------------- what arrives equal


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Doubling, Doubling(price=3)),
        (list[Doubling], [Doubling(price=3)]),
        (Adding, Adding(total=1)),
        (Hashing, Hashing(password="hunter2")),
        (Splitting, Splitting(tags="a,b")),  # type: ignore[arg-type]
        (Nested, Nested(one={"price": 1}, many=[{"price": 2}], by_name={"a": Adding()})),  # type: ignore[arg-type, list-item]
        (dict[str, tuple[Nested, ...]], {"a": (Nested(one=Doubling(price=1), many=[]),)}),
        (Tree, Tree(value=1, children=[Tree(value=2, children=[Tree(value=3)])])),
        (Patch, Patch(color=Color.BLUE)),
        (Patch | None, Patch(maybe=None)),
        (Private, private),
        (Open, Open(name="a", more=(1, 2))),  # type: ignore[call-arg]
        (Aliased, Aliased.model_validate({"x-internal-admin": True, "Name": "a"})),
        (Strict, Strict(count=1, color=Color.RED, where=Path("/a"), site=AnyUrl("http://a.b/"))),
        (Computed, Computed(side=3)),
        (Page[Color], Page[Color](items=[Color.RED])),
        (Page[Doubling], Page[Doubling](items=[Doubling(price=1)])),
        (RootModel[list[Color]], RootModel[list[Color]]([Color.RED])),
        (Scaling, Scaling(1)),
        (list[Scaling | None], [Scaling(1), None]),
        (WithInit, WithInit(2, 3)),
        (Frozen, Frozen(Color.RED, at=datetime(2026, 1, 1, tzinfo=UTC))),
        (Computing, Computing("a/b")),
        (Computing, changed),
        (Pathy, Pathy(Path("/a"), bytearray(b"b"), Counter(a=2))),
        (Box[Color], Box(Color.RED)),
        (Holder, Holder(Frozen(Color.BLUE), [Scaling(2)])),
        (Checked, Checked(3, Color.BLUE)),
        (Place, Place("home", Color.BLUE)),
        (Options, {"color": Color.RED}),
        (Expr, Or(And(1, 2), Xor(3, Or(4, 5)))),
        (MExpr, MOr(left=MAnd(left=1, right=2), right=MXor(left=3, right=4))),
        (Scaling | Wider, Wider(1, 2)),
        (Scaling | dict[str, int], Scaling(1)),
        (Scaling | dict[str, int], {"x": 1}),
        (Color, Color.RED),
        (set[Color], {Color.RED, Color.BLUE}),
        (dict[Color, list[Color]], {Color.RED: [Color.BLUE]}),
        (Literal[Color.RED], Color.RED),
        (Literal[Color.RED, "other"], Color.RED),
        (Literal[Color.RED, "other"], "other"),
        (list[Literal[Color.RED, Color.BLUE] | None], [Color.BLUE, None]),
        (int, Level.LOW),
        (Counter[str], Counter(a=1, b=2)),
        (Counter, Counter("abca")),
        (OrderedDict[str, Color], OrderedDict(b=Color.RED, a=Color.BLUE)),
        (OrderedDict, OrderedDict(b=1, a=2)),
        (defaultdict[str, list[int]], defaultdict(list, a=[1])),
        (bytearray, bytearray(b"ab")),
        (list[bytearray], [bytearray(b"ab")]),
        (Any, OrderedDict(b=1, a=2)),
        (Any, defaultdict(list, a=[1])),
        (Any, bytearray(b"ab")),
        (Secret[Doubling], Secret(Doubling(price=1))),
        (Secret[Color], Secret(Color.RED)),
    ],
    ids=steady_name,
)
def test_what_was_passed_arrives_equal(annotation: Any, value: Any) -> None:
    came = sent(annotation, value)

    assert came == value
    if annotation not in (Any, int):
        assert type(came) is type(value)


def test_what_a_model_was_not_given_stays_unset() -> None:
    assert sent(Patch, Patch(color=Color.BLUE)).model_dump(exclude_unset=True) == {
        "color": Color.BLUE
    }
    assert sent(Open, Open(name="a", b=1)).model_fields_set == {"name", "b"}  # type: ignore[call-arg]


def test_objects_that_compare_by_identity_arrive_with_their_fields() -> None:
    assert sent(Unequal, Unequal(Color.BLUE)).color is Color.BLUE


def test_attributes_beside_the_fields_arrive_too() -> None:
    came = sent(Computing, changed)

    assert (came.parts, came.size) == (["a", "b", "c"], 3)
    assert sent(Private, private)._seen is Color.BLUE
    assert (private._count, sent(Private, private)._count) == (1, 1)


def test_what_holds_a_lock_is_constructed_again_where_that_makes_an_equal_one() -> None:
    @dataclass
    class Guarded:
        color: Color

        def __post_init__(self) -> None:
            self.lock = threading.Lock()

    came = sent(Guarded, Guarded(Color.RED))

    assert came == Guarded(Color.RED)
    assert came.lock.acquire()
    assert sent(Computed, computed := Computed(side=2)) == computed
    assert computed.lock is not None
    assert sent(Computed, computed).area == 4


def test_collections_have_their_class_and_their_factory() -> None:
    came = sent(defaultdict[str, list[int]], defaultdict(list))

    came["a"].append(1)
    assert came == {"a": [1]}
    assert sent(Counter[str], {"a": 1}).most_common() == [("a", 1)]
    assert type(sent(bytearray, b"ab")) is bytearray


def test_an_object_is_restored_without_its_class_s_code() -> None:
    calls: list[int] = []

    @dataclass
    class Noting:
        x: int

        def __post_init__(self) -> None:
            calls.append(self.x)

    value = Noting(1)
    sent(Noting, value)

    assert calls == [1]


# -------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (Any, Color.RED, " is a Color that would arrive as a str; annotate"),
        (str, Color.RED, " is a Color that would arrive as a str; annotate"),
        (Color | str, Color.RED, " is a Color that would arrive as a str; annotate"),
        (Any, [1, {"a": (Color.RED,)}], "[1]['a'][0] is a Color that would arrive as a str"),
        (Any, {Color.RED: 1}, "<key> is a Color"),
        (Any, {1, Color.RED}, " is a set"),
        (
            Any,
            Frozen(Color.RED),
            " is a Frozen that would arrive as a dictionary of its fields; ann",
        ),
        (Any, Patch(), " is a Patch that would arrive as a dictionary of its fields"),
        (dict, Patch(), " is a Patch"),
        (Scaling, Wider(1), " is a Wider that would arrive as a Scaling"),
        (list[Box], [Box(Color.RED)], "[0].content is a Color that would arrive as a str"),
        (Any, Place("home"), "[1] is a Color"),
        (Place, Place("home", "r"), "[1] is a str that would arrive as a Color"),  # type: ignore[arg-type]
        (Frozen, Frozen("r"), ".color is a str that would arrive as a Color"),  # type: ignore[arg-type]
        (Holder, Holder(Frozen(Color.RED), [Wider(1)]), ".more[0] is a Wider"),
        (defaultdict[str, int], defaultdict(lambda: 1), " is a defaultdict that would arrive chan"),
        (list[Doubling], [{"price": 1}, Adding()], "[1] does not fit: Doubling needs `price`"),
        (
            Nested,
            {"one": Doubling(price=1), "many": []},
            "['one'].price is an int that would arrive changed",
        ),
        (Secret[str], Secret(Color.RED), " is a Color that would arrive as a str"),
    ],
    ids=steady_name,
)
def test_what_would_arrive_as_another_value_is_refused(
    annotation: Any, value: Any, path: str
) -> None:
    text = refused(annotation, value)

    assert text.startswith((f"args[0]{path}", f"arg{path}")), text
    assert "'r'" not in text


def test_a_row_of_a_database_is_no_dataclass() -> None:
    @dataclass
    class Mapped:
        id: int

    Mapped.__mapper__ = "users"  # type: ignore[attr-defined]

    assert "pass its primary key and load it inside the task" in refused(Mapped, Mapped(1))


# ------------------------------------------------------------------------- plain data is no object


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (
            WithInit,
            {"x": 2, "by": 3, "product": 7},
            "does not fit: WithInit has no field `product`",
        ),
        (WithInit, {"x": 2}, "does not fit: WithInit needs `by`"),
        (Computing, {"path": "a", "parts": []}, "has no field `parts`"),
        (
            Strict,
            {"count": "1", "color": "r"},
            "is not a valid Strict: count: Input should be a valid integ",
        ),
        (Strict, {"count": 1, "color": "r"}, "color: Input should be an instance of Color"),
        (Scaling | int, {"y": 1}, "does not fit: Scaling has no field `y`"),
        (Scaling | int, [1], "is [1], expected the fields of Scaling"),
        (int | list[Scaling], [{"y": 1}], "[0] does not fit: Scaling has no field `y`"),
        (int | Patch | None, {"color": "green"}, "is not a valid Patch: color: "),
    ],
    ids=steady_name,
)
def test_plain_data_sets_nothing_that_a_constructor_does_not_take(
    annotation: Any, value: Any, message: str
) -> None:
    with pytest.raises(CallError) as caught:
        sent(annotation, value)

    assert message in str(caught.value)


def test_plain_data_is_input_and_validated() -> None:
    assert sent(Doubling, {"price": 3}) == Doubling(price=3)
    assert sent(Splitting, {"tags": "a,b"}).tags == ["a", "b"]
    assert sent(Scaling, {"x": 1}) == Scaling(1)
    assert sent(WithInit, {"x": 2, "by": 3}) == WithInit(2, 3)
    assert sent(Checked, {"price": 3}).price == 6
    assert sent(Frozen, {"color": "b"}) == Frozen(Color.BLUE)


def test_fields_behind_an_alias_are_not_taken_by_name() -> None:
    assert not sent(Aliased, {"is_admin": True}).is_admin
    assert sent(Aliased, {"x-internal-admin": True, "Name": "a"}) == Aliased.model_validate(
        {"x-internal-admin": True, "Name": "a"}
    )


def test_plain_members_of_a_union_take_what_they_are() -> None:
    for annotation, value in [
        (int | Patch, 7),
        (float | Color, 7),
        (dict[str, int] | Patch, {"a": 1}),
        (list[int] | Patch, [1]),
        (Patch | Any, {"color": 3}),
        (Patch | T, [1]),  # type: ignore[valid-type]
        (list[str] | list[Color], ["x"]),
        (int | Patch | None, None),
    ]:
        assert sent(annotation, value) == value


# ------------------------------------------------------------------------------------ bounded work


def nested(depth: int, leaf: Any, **more: Any) -> Any:
    value = leaf
    for _ in range(depth):
        value = {"left": 1, "right": value, **more}
    return value


@pytest.mark.parametrize("leaf", [1, "x", {}, {"left": 1}])
@pytest.mark.parametrize("annotation", [Expr, MExpr, list[Expr], MAnd, And])
def test_recursive_unions_take_bounded_time(annotation: Any, leaf: Any) -> None:
    value = nested(29, leaf)
    begun = time.process_time()
    text = ""
    try:
        sent(annotation, [value] if annotation == list[Expr] else value)
    except CallError as error:
        text = str(error)

    # It took three times as long for each level: years.
    assert time.process_time() - begun < 20
    assert len(text) < 1000


def test_what_pydantic_would_try_too_often_is_refused_in_words() -> None:
    with pytest.raises(CallError, match=r"more than 400,000 attempts; .* or a discriminator"):
        sent(MExpr, nested(20, 1))

    assert isinstance(sent(MExpr, nested(6, 1)), MAnd)
    assert sent(TAnd, nested(12, 1, kind="and")).kind == "and"
    assert isinstance(sent(Expr, nested(29, 1)), And)


def test_large_honest_payloads_are_no_work_to_speak_of() -> None:
    rows = [{"color": "r", "maybe": number} for number in range(15_000)]

    assert len(sent(list[Patch | Frozen], rows)) == 15_000
    assert len(sent(list[Color | None], ["r"] * 90_000)) == 90_000


# --------------------------------------------------------------------------------------- property

colors = st.sampled_from(Color)
integers = st.integers(-1000, 1000)
objects = st.one_of(
    colors,
    st.builds(Doubling, price=integers),
    st.builds(Adding, total=integers),
    st.builds(Scaling, integers),
    st.builds(Wider, integers, integers),
    st.builds(WithInit, integers, integers),
    st.builds(Frozen, colors | st.just("r"), st.none() | st.sampled_from(Level)),
    st.builds(Patch, color=colors),
    st.builds(Place, st.text(max_size=3), colors | st.just("r")),
    st.builds(Checked, integers),
    st.builds(Counter, st.text(max_size=4)),
    st.builds(defaultdict, st.sampled_from([list, int, None])),
    st.builds(OrderedDict, st.dictionaries(st.text(max_size=2), integers, max_size=3)),
    st.sampled_from(Level),
    st.binary(max_size=3).map(bytearray),
)
values = st.recursive(
    objects | integers | st.text(max_size=3) | st.none(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
        st.builds(Box, inner),
        inner.map(Secret),
    ),
    max_leaves=8,
)
annotations = st.recursive(
    st.sampled_from(
        [
            *(
                Any,
                int,
                str,
                Color,
                Doubling,
                Adding,
                Scaling,
                Wider,
                WithInit,
                Frozen,
                Patch,
                Place,
            ),
            *(Checked, Counter[str], defaultdict[str, list[int]], OrderedDict, bytearray, Level),
            *(Literal[Color.RED], Color | str, Scaling | Wider | Patch, Box[Color], Box[Any]),
        ]
    ),
    lambda inner: st.one_of(
        inner.map(lambda one: list[one]),
        inner.map(lambda one: dict[str, one]),
        inner.map(lambda one: tuple[one, ...]),
        inner.map(lambda one: Box[one]),
        inner.map(lambda one: Secret[one]),
        st.tuples(inner, inner).map(lambda two: two[0] | two[1] | None),
    ),
    max_leaves=4,
)


def alike(before: Any, after: Any) -> bool:
    """Equal all the way down, where `before` is or holds an object; plain data is input."""
    if isinstance(before, Secret) and isinstance(after, Secret):
        return alike(before.reveal(), after.reveal())
    if type(before) in (list, tuple) and isinstance(after, (list, tuple)):
        return len(before) == len(after) and all(map(alike, before, after))
    if type(before) is dict and isinstance(after, dict):
        return before.keys() == after.keys() and all(alike(before[k], after[k]) for k in before)
    if type(before) in (int, str, type(None), dict, list, tuple, bytearray):
        return True
    if isinstance(before, Box):
        return type(after) is Box and (before == after or alike(before.content, after.content))
    return bool(before == after) and (isinstance(after, type(before)) or before == after)


@given(annotations, values)
@settings(
    deadline=None,
    max_examples=600,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_any_value_arrives_equal_or_is_refused(annotation: Any, value: Any) -> None:
    try:
        came = sent(annotation, value)
    except TaskqError:
        return

    assert alike(value, came), (annotation, value, came)


@given(
    st.one_of(
        st.tuples(st.just(Doubling), st.builds(Doubling, price=integers)),
        st.tuples(st.just(list[Scaling]), st.lists(st.builds(Scaling, integers), max_size=3)),
        st.tuples(st.just(Expr), st.deferred(lambda: expressions)),
        st.tuples(st.just(Frozen | Patch), st.builds(Frozen, colors) | st.builds(Patch)),
    )
)
@settings(deadline=None, max_examples=200, database=None)
def test_objects_of_the_annotated_classes_always_arrive(call: tuple[Any, Any]) -> None:
    annotation, value = call

    came = sent(annotation, value)

    assert came == value
    assert type(came) is type(value)


expressions = st.recursive(
    integers,
    lambda inner: st.builds(lambda k, a, b: k(a, b), st.sampled_from([And, Or, Xor]), inner, inner),
)
