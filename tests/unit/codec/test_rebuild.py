"""What annotations make of plain values, and what they say when they cannot."""

from __future__ import annotations

import dataclasses
import enum
import functools
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    TypeVar,
    Union,
    Unpack,
)
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    PlainSerializer,
    PlainValidator,
    RootModel,
    field_serializer,
    field_validator,
    model_serializer,
)
from pydantic.dataclasses import dataclass as model_dataclass
from typing_extensions import TypeAliasType

from taskq.codec.payload import decode_call, decode_value, encode_call, encode_value
from taskq.codec.rebuild import CallRebuilder, compile_rebuilder, result_rebuilder
from taskq.core.errors import CallError
from tests.support.names import steady_name

if TYPE_CHECKING:
    from elsewhere import Missing  # pyright: ignore[reportMissingImports]

T = TypeVar("T")


@pytest.fixture(autouse=True)
def nothing_left_running() -> None:
    """Nothing is started here; the check would collect garbage after each of these many tests."""


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


class Corner(enum.Enum):
    ORIGIN = (0, 0)
    FAR = (9, 9)


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass(frozen=True, slots=True)
class Shape:
    color: Color
    points: list[Point] = field(default_factory=list)
    size: Size | None = None


@dataclass
class Tree:
    value: Color
    children: list[Tree] = field(default_factory=list)


@dataclass
class Counted:
    color: Color
    seen: Color = field(init=False, default=Color.BLUE)


@dataclass(kw_only=True)
class Strict:
    x: int

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x is below zero")


@dataclass
class Scaled:
    x: int
    by: InitVar[int]

    def __post_init__(self, by: int) -> None:
        self.x *= by


@dataclass
class Box(Generic[T]):
    content: T
    more: list[T] = field(default_factory=list)
    maybe: T | None = None


@dataclass
class Half:
    color: Color
    other: Missing = None


class Shop(BaseModel):
    name: str
    color: Color = Color.RED
    opened: datetime | None = None


class Aliased(BaseModel):
    full_name: str = Field(alias="fullName")
    model_config = ConfigDict(extra="forbid")


class Picky(BaseModel):
    low: int
    high: int

    @field_validator("low", "high")
    @classmethod
    def positive(cls, value: int) -> int:
        if value < 0:
            raise ValueError("must not be below zero")
        return value


@model_dataclass
class Checked:
    color: Color
    count: int = 1


class Place(NamedTuple):
    name: str
    color: Color = Color.RED


class Options(TypedDict):
    color: Required[Color]
    size: NotRequired[Size]
    note: str


@dataclass
class Solid(Point):
    z: int = 0


class Base(BaseModel):
    a: int


class Derived(Base):
    b: int


class Bag(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Hidden(BaseModel):
    a: int
    b: int = Field(5, exclude=True)
    c: int = Field(exclude=True)


class Exact(BaseModel):
    model_config = ConfigDict(strict=True)
    color: Color
    key: UUID
    path: Path
    pair: tuple[int, ...]
    place: Place
    inner: Exact | None = None


class ShownAsText(BaseModel):
    day: datetime
    whole: Base

    @field_serializer("day")
    def shown(self, day: datetime) -> str:
        return day.strftime("%d/%m/%Y")

    @model_serializer(mode="wrap")
    def all(self, handler: Any) -> Any:
        return handler(self) | {"shown": True}


class Raw:
    """What cannot travel but in a model that says how."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Raw) and other.value == self.value

    __hash__ = None  # type: ignore[assignment]


class Wrapping(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    raw: Annotated[Raw, PlainSerializer(lambda raw: raw.value), PlainValidator(Raw)]
    more: list[Annotated[Raw, PlainSerializer(lambda raw: raw.value), PlainValidator(Raw)]] = []


class Parsed(BaseModel):
    numbers: Json[list[int]]
    words: Annotated[
        list[str], BeforeValidator(lambda text: text.split()), PlainSerializer(" ".join)
    ]


class DuckModel:
    """Neither pydantic's nor with the parameters of its newer versions."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DuckModel) and other.value == self.value

    __hash__ = None  # type: ignore[assignment]

    def model_dump(self, **_: Any) -> dict[str, int]:
        return {"value": self.value}

    @classmethod
    def model_validate(cls, data: Any) -> DuckModel:
        return cls(data["value"])


class Loose(TypedDict, total=False):
    note: str
    color: Color


exact = Exact(
    color=Color.RED,
    key=UUID(int=7),
    path=Path("/a"),
    pair=(1, 2),
    place=Place("home", Color.BLUE),
)
wrapping = Wrapping(raw=3, more=[4, 5])  # type: ignore[arg-type, list-item]

UserColor = NewType("UserColor", Color)
Tag = NewType("Tag", str)
Alias = TypeAliasType("Alias", list[Color])


def rebuilt(annotation: Any, value: Any) -> Any:
    """The value as it comes out at the other end of the queue."""
    came = decode_value(encode_value(value))
    rebuild = compile_rebuilder(annotation)
    assert rebuild is not None
    return rebuild(came)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Color, Color.RED),
        (Size, Size.LARGE),
        (Mode, Mode.READ | Mode.WRITE),
        (Corner, Corner.FAR),
        (Point, Point(1, 2)),
        (Shape, Shape(Color.RED, [Point(1), Point(2, 3)], Size.SMALL)),
        (Tree, Tree(Color.RED, [Tree(Color.BLUE, [Tree(Color.RED)])])),
        (Shop, Shop(name="a", color=Color.BLUE, opened=datetime(2026, 1, 1, tzinfo=UTC))),
        (Aliased, Aliased(fullName="Ada")),
        (Checked, Checked(Color.BLUE, 3)),
        (Hidden, Hidden(a=1, b=7, c=8)),
        (list[Hidden], [Hidden(a=1, b=7, c=8)]),
        (Exact, exact),
        (Exact, exact.model_copy(update={"inner": exact})),
        (ShownAsText, ShownAsText(day=datetime(2026, 1, 2, tzinfo=UTC), whole=Base(a=1))),
        (Wrapping, wrapping),
        (dict[str, Wrapping], {"a": wrapping}),
        (Parsed, Parsed(numbers="[1, 2]", words="a b")),  # type: ignore[arg-type]
        (Bag, Bag(a=1, other=[2])),  # type: ignore[call-arg]
        (RootModel[list[Base]], RootModel[list[Base]]([Base(a=1)])),
        (RootModel[dict[str, Base]], RootModel[dict[str, Base]]({"x": Base(a=1)})),
        (DuckModel, DuckModel(3)),
        (Place, Place("home", Color.BLUE)),
        (Options, Options(color=Color.RED, size=Size.SMALL, note="n")),
        (Options, Options(color=Color.RED, note="n")),
        (list[Color], [Color.RED, Color.BLUE]),
        (list[Shop], [Shop(name="a"), Shop(name="b")]),
        (Sequence[Color], [Color.RED]),
        (Sequence[Color], (Color.RED,)),
        (Iterable[Point], [Point(1)]),
        (tuple[Color, ...], (Color.RED, Color.RED)),
        (tuple[int, Color], (1, Color.BLUE)),
        (list[str] | list[Color], [Color.RED]),
        (list[str] | list[Color], ["green"]),
        (set[Color], {Color.RED, Color.BLUE}),
        (frozenset[Size], frozenset({Size.SMALL})),
        (dict[str, Point], {"a": Point(1)}),
        (dict[Color, int], {Color.RED: 1}),
        (dict[Color, list[Size]], {Color.RED: [Size.LARGE]}),
        (Mapping[str, Color], {"a": Color.RED}),
        (dict[tuple[Color, int], Color], {(Color.RED, 1): Color.BLUE}),
        (typing.List[Color], [Color.RED]),  # noqa: UP006
        (typing.Dict[str, Color], {"a": Color.RED}),  # noqa: UP006
        (Optional[Color], Color.RED),  # noqa: UP045
        (Optional[Color], None),  # noqa: UP045
        (Color | None, Color.BLUE),
        (Union[Point, Shape], Shape(Color.RED)),  # noqa: UP007
        (Shape | Point, Point(1)),
        (Solid | Point, Point(1)),
        (Point | Solid, Solid(1, 2, 3)),
        (Base | Derived, Derived(a=1, b=2)),
        (Derived | Base, Base(a=1)),
        (Base | Derived | None, Derived(a=1, b=2)),
        (Base | Bag, Bag(a=1, c=3)),  # type: ignore[call-arg]
        (list[Solid | Point], [Point(1), Solid(1)]),
        (Loose | Point, Point(1)),
        (Point | Color | None, Color.RED),
        (Point | str, "red"),
        (Point | str, Point(1)),
        (Color | int, 7),
        (Size | float, 7),
        (list[Color] | Color, Color.RED),
        (list[Color] | Color, [Color.RED]),
        (Color | Any, "green"),
        (Annotated[Color, "paint"], Color.RED),
        (list[Annotated[Color, "paint"]], [Color.RED]),
        (UserColor, Color.RED),
        (Final[Color], Color.RED),
        (Box[Color], Box(Color.RED, [Color.BLUE], Color.RED)),
        (Box[list[Point]], Box([Point(1)], [[Point(2)]])),
        (Box[Box[Color]], Box(Box(Color.RED))),
        (list[list[dict[str, tuple[Color, ...]]]], [[{"a": (Color.RED,)}]]),
    ],
    ids=steady_name,
)
def test_annotations_rebuild_what_was_passed(annotation: Any, value: Any) -> None:
    came = rebuilt(annotation, value)

    assert came == value
    assert type(came) is type(value)


@pytest.mark.parametrize(
    "annotation",
    [
        *(None, Any, object, int, str, bytes, float, bool, list, dict, tuple, set),
        *(datetime, Decimal, UUID, T, Tag, "Color", ..., 3),
        *(list[int], dict[str, Any], tuple[int, str], tuple[int, ...], set[str], Sequence[int]),
        *(tuple[()], tuple[int, *tuple[Color, ...]], Mapping[str, int]),
        tuple[int, Unpack[tuple[Color, ...]]],  # noqa: UP044
        *(int | None, Optional[str], Union[int, list[str]], Literal["a", "b"], type[int]),  # noqa: UP007, UP045
        *(Annotated[int, "n"], Annotated[list[int] | None, "n"], Callable[[int], Color]),
    ],
    ids=steady_name,
)
def test_plain_annotations_cost_nothing(annotation: Any) -> None:
    assert compile_rebuilder(annotation) is None


def test_what_is_an_instance_already_is_left_alone() -> None:
    point, shop, place = Point(1), Shop(name="a"), Place("b")

    for annotation, value in [(Point, point), (Shop, shop), (Place, place), (Color, Color.RED)]:
        rebuild = compile_rebuilder(annotation)
        assert rebuild is not None
        assert rebuild(value) is value


def test_an_exact_member_of_a_union_wins_over_what_could_be_made() -> None:
    assert rebuilt(Color | str, "red") == "red"
    assert rebuilt(Point | dict[str, int], {"x": 1}) == {"x": 1}
    assert rebuilt(Color | bytes, "red") is Color.RED


def test_of_classes_with_the_same_fields_the_one_that_was_sent_is_made() -> None:
    class Other(BaseModel):
        a: int

    assert rebuilt(Base | Other, Other(a=1)) == Other(a=1)
    # Of plain data the first of the union
    assert rebuilt(Base | Other, {"a": 1}) == Base(a=1)
    # Where one of them is not possible, the other is
    assert rebuilt(Base | Derived, {"a": 1, "c": 3}) == Base(a=1)


def test_containers_keep_the_kind_they_came_as() -> None:
    assert rebuilt(list[Color], (Color.RED,)) == (Color.RED,)
    assert rebuilt(set[Color], [Color.RED]) == [Color.RED]
    assert rebuilt(tuple[Color, int], [Color.RED, 1]) == [Color.RED, 1]


def test_fields_no_constructor_takes_are_set_afterwards() -> None:
    counted = Counted(Color.RED)
    counted.seen = Color.RED

    assert rebuilt(Counted, counted) == counted


def test_a_field_whose_annotation_cannot_be_resolved_is_left_as_it_came() -> None:
    came = rebuilt(Half, Half(Color.RED, {"a": 1}))

    assert came == Half(Color.RED, {"a": 1})
    assert came.color is Color.RED


def test_a_type_alias_is_what_it_names() -> None:
    assert rebuilt(Alias, [Color.RED]) == [Color.RED]


# ------------------------------------------------------------------------------------------ calls


def paint(color: Color, points: list[Point], width: int = 1, *, size: Size | None = None) -> Shop:
    raise NotImplementedError


def called(
    function: Callable[..., Any], *args: Any, **kwargs: Any
) -> tuple[list[Any], dict[str, Any]]:
    rebuilder = CallRebuilder.of(function)
    assert rebuilder is not None
    return rebuilder.apply(*decode_call(encode_call(args, kwargs)))


def test_arguments_are_rebuilt_by_place_and_by_name() -> None:
    by_place = called(paint, Color.RED, [Point(1)], 3, size=Size.LARGE)
    by_name = called(paint, points=[Point(1)], color=Color.RED)

    assert by_place == ([Color.RED, [Point(1)], 3], {"size": Size.LARGE})
    assert by_place[0][0] is Color.RED
    assert by_name == ([], {"points": [Point(1)], "color": Color.RED})


def test_surplus_arguments_are_rebuilt_by_the_annotations_of_args_and_kwargs() -> None:
    def function(first: int, /, *colors: Color, last: int = 0, **points: Point) -> None: ...

    args, kwargs = called(function, 1, Color.RED, Color.BLUE, last=3, first=Point(1), b=Point(2))

    assert args == [1, Color.RED, Color.BLUE]
    assert kwargs == {"last": 3, "first": Point(1), "b": Point(2)}


def test_only_what_was_passed_is_touched_and_no_signature_judged() -> None:
    assert called(paint, Color.RED) == ([Color.RED], {})
    assert called(paint, nonsense="red") == ([], {"nonsense": "red"})
    assert called(paint, Color.RED, [], 1, 2, 3) == ([Color.RED, [], 1, 2, 3], {})


def test_the_arguments_passed_in_are_not_changed() -> None:
    rebuilder = CallRebuilder.of(paint)
    args, kwargs = ["red"], {"size": 1}

    assert rebuilder is not None
    rebuilder.apply(args, kwargs)

    assert (args, kwargs) == (["red"], {"size": 1})


async def plain(a: int, b: list[str], *args: float, c: dict[str, Any] | None = None) -> int:
    raise NotImplementedError


def bare(a, b=1, *args, **kwargs):
    raise NotImplementedError


def test_functions_of_builtins_alone_need_no_rebuilder() -> None:
    assert CallRebuilder.of(plain) is None
    assert CallRebuilder.of(bare) is None
    assert result_rebuilder(plain) is None
    assert result_rebuilder(bare) is None


def type_checked(color: Color, other: Missing, more: list[Missing] | None = None) -> Missing:
    raise NotImplementedError


def test_annotations_for_the_type_checker_alone_are_left_out() -> None:
    args, kwargs = called(type_checked, Color.RED, {"a": 1}, more=[2])

    assert args == [Color.RED, {"a": 1}]
    assert kwargs == {"more": [2]}
    assert result_rebuilder(type_checked) is None


def test_names_defined_after_the_function_are_found_at_the_first_call() -> None:
    known: dict[str, Any] = {"__name__": __name__}
    exec("def later(point: 'Late', n: int) -> None: ...", known)
    rebuilder = CallRebuilder.of(known["later"])
    known["Late"] = Point

    assert rebuilder is not None
    assert rebuilder.apply([{"x": 1}, 2], {}) == ([Point(1), 2], {})
    assert rebuilder.apply([{"x": 2}, 2], {}) == ([Point(2), 2], {})


def test_names_never_found_change_nothing() -> None:
    known: dict[str, Any] = {}
    exec("def never(point: 'Late', n: int) -> None: ...", known)
    rebuilder = CallRebuilder.of(known["never"])

    assert rebuilder is not None
    assert rebuilder.apply([{"x": 1}, 2], {"a": 1}) == ([{"x": 1}, 2], {"a": 1})


def test_local_classes_are_found_where_the_function_mentions_them() -> None:
    class Local(enum.Enum):
        A = 1

    unset: Any

    def function(a: Local) -> Local:
        return Local.A if a else unset

    if not function(Local.A):
        unset = None

    assert called(function, Local.A) == ([Local.A], {})
    rebuild = result_rebuilder(function)
    assert rebuild is not None
    assert rebuild(1) is Local.A


def test_a_wrapped_function_has_the_annotations_of_what_it_wraps() -> None:
    @functools.wraps(paint)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    assert called(wrapper, Color.RED, size=Size.SMALL) == ([Color.RED], {"size": Size.SMALL})


def test_results_are_rebuilt_by_the_return_annotation() -> None:
    rebuild = result_rebuilder(paint)

    assert rebuild is not None
    assert rebuild({"name": "a", "color": "blue", "opened": None}) == Shop(
        name="a", color=Color.BLUE
    )
    with pytest.raises(CallError, match="result is not a valid Shop: name: Field required"):
        rebuild({"color": "blue"})


# ---------------------------------------------------------------------------------------- misfits


def mismatch(annotation: Any, value: Any) -> str:
    def function(arg: Any) -> None: ...

    function.__annotations__["arg"] = annotation
    rebuilder = CallRebuilder.of(function)
    assert rebuilder is not None
    messages: set[str] = set()
    for args, kwargs in (([value], {}), ([], {"arg": value})):
        with pytest.raises(CallError) as caught:
            rebuilder.apply(args, kwargs)
        assert type(caught.value) is CallError
        messages.add(str(caught.value))
    (message,) = messages
    return message


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (Color, "green", "arg is 'green', expected a value of the enum Color: 'red', 'blue'"),
        (
            Color | None,
            "green",
            "arg is 'green', expected a value of the enum Color: 'red', 'blue'",
        ),
        (list[Color], ["red", "green"], "arg[1] is 'green', expected a value of the enum Color"),
        (list[Color], "red", "arg is 'red', expected list[tests.unit.codec.test_rebuild.Color]"),
        (list[Color], {"a": 1}, "arg is {'a': 1}, expected list["),
        (tuple[int, Color], (1, "green"), "arg[1] is 'green', expected"),
        (tuple[int, Color], (1,), "arg holds 1 values, expected tuple[int, "),
        (tuple[int, Color], 1, "arg is 1, expected tuple[int, "),
        (dict[str, Color], {"a": "green"}, "arg['a'] is 'green', expected"),
        (dict[Color, str], {"green": "a"}, "arg['green'] is 'green', expected"),
        (dict[str, Color], [], "arg is [], expected dict[str, "),
        (Point, [1, 2], "arg is [1, 2], expected the fields of Point"),
        (Point, {}, "arg does not fit: Point needs `x`"),
        (Point, {"x": 1, "z": 1, "a": 2}, "arg does not fit: Point has no field `a`, `z`"),
        (Shape, {"color": "red", "points": [{"x": 1}, {"y": 1}]}, "arg.points[1] does not fit:"),
        (Shape, {"color": "green"}, "arg.color is 'green', expected"),
        (
            Tree,
            {"value": "red", "children": [{"value": 1}]},
            "arg.children[0].value is 1, expected",
        ),
        (Strict, {"x": -1}, "arg is not a valid Strict: ValueError: x is below zero"),
        (Scaled, {"x": 1}, "arg does not fit: Scaled needs `by`"),
        (Point, {"x": 1} | dict.fromkeys("abcdefg"), "no field `a`, `b`, `c`, `d`, `e` and 2 more"),
        (
            Shop,
            {"name": 1, "color": "green"},
            "arg is not a valid Shop: name: Input should be a valid str",
        ),
        (Shop, {"name": 1, "color": "green"}, "; color: Input should be 'red' or 'blue'"),
        (
            list[Shop],
            [{"name": "a"}, 3],
            "arg[1] is not a valid Shop: Input should be a valid dictionary",
        ),
        (
            Picky,
            {"low": -1, "high": 1},
            "arg is not a valid Picky: low: Value error, must not be below",
        ),
        (DuckModel, {"other": 1}, "arg is not a valid DuckModel: KeyError: 'value'"),
        (Place, ("home",), "arg is ('home',), expected the 2 values of Place"),
        (Place, ("home", "green"), "arg.color is 'green', expected"),
        (Options, {"color": "green"}, "arg['color'] is 'green', expected"),
        (Options, 3, "arg is 3, expected the keys of Options"),
        (Point | Shape, {"q": 1}, "arg is {'q': 1}, expected "),
        (Point | Shape | None, 3, "arg is 3, expected "),
        (Color, "x" * 500, "..."),
    ],
    ids=steady_name,
)
def test_a_value_that_does_not_fit_names_the_parameter(
    annotation: Any, value: Any, message: str
) -> None:
    text = mismatch(annotation, value)

    assert text.startswith("arg")
    assert message in text
    assert len(text) < 400


def test_a_misfit_in_surplus_arguments_names_its_place() -> None:
    def function(*colors: Color, **points: Point) -> None: ...

    rebuilder = CallRebuilder.of(function)

    assert rebuilder is not None
    with pytest.raises(CallError, match=r"^colors\[1\] is 'green', expected"):
        rebuilder.apply(["red", "green"], {})
    with pytest.raises(CallError, match=r"^far does not fit: Point needs `x`$"):
        rebuilder.apply([], {"near": {"x": 1}, "far": {}})


def test_a_misfit_without_a_parameter_is_a_call_error_too() -> None:
    rebuild = compile_rebuilder(list[Color])

    assert rebuild is not None
    with pytest.raises(
        CallError, match=r"^value\[0\] is 'green', expected a value of the enum Color"
    ):
        rebuild(["green"])


# --------------------------------------------------------------------------------------- property

colors = st.sampled_from(Color)
points = st.builds(Point, st.integers(), st.integers())
shapes = st.builds(Shape, colors, st.lists(points, max_size=3), st.none() | st.sampled_from(Size))
shops = st.builds(
    Shop, name=st.text(), color=colors, opened=st.none() | st.datetimes(timezones=st.just(UTC))
)
trees = st.recursive(
    st.builds(Tree, colors), lambda inner: st.builds(Tree, colors, st.lists(inner, max_size=3))
)


def everything(
    color: Color,
    shape: Shape | None,
    /,
    *tree: Tree,
    shop: Shop | Shape,
    by_color: dict[Color, tuple[Point, ...]],
    **rest: set[Color],
) -> None: ...


@given(
    st.tuples(colors, st.none() | shapes, trees, trees),
    st.fixed_dictionaries(
        {
            "shop": shops | shapes,
            "by_color": st.dictionaries(colors, st.lists(points, max_size=2).map(tuple)),
            "more": st.sets(colors),
        }
    ),
)
@settings(
    deadline=None,
    max_examples=100,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_every_call_arrives_as_it_was_written(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    came_args, came_kwargs = called(everything, *args, **kwargs)

    assert came_args == list(args)
    assert came_kwargs == kwargs
    assert all(type(a) is type(b) for a, b in zip(came_args, args, strict=True))
    assert type(came_kwargs["shop"]) is type(kwargs["shop"])


def test_a_rebuilt_dataclass_is_a_new_one() -> None:
    point = Point(1)

    assert rebuilt(Point, point) is not point
    assert dataclasses.asdict(rebuilt(Point, point)) == {"x": 1, "y": 0}
