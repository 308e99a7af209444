"""Registries by type: the nearest base, users' types, and what is refused."""

from __future__ import annotations

import abc
from collections.abc import Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.graph.bytype import MOST_KNOWN, ByType


def registry() -> ByType:
    return ByType("mine", "what it does", met=lambda kind: None, otherwise=lambda kind: None, fixed=frozenset([int]))


class Base:
    pass


class Derived(Base):
    pass


def test_the_function_of_the_nearest_base_is_called() -> None:
    mine = registry()
    mine.register(Base, lambda value: "base")
    assert (mine(Base()), mine(Derived())) == ("base", "base")
    mine.register(Derived, lambda value: "derived")  # also for a type that was met before
    assert (mine(Base()), mine(Derived())) == ("base", "derived")
    mine.register(Base, lambda value: "another")
    assert mine(Base()) == "another"


def test_what_is_not_registered_is_passed_on() -> None:
    mine = registry()
    value = object()
    assert mine(value) is value
    assert not mine.knows(object)


def test_as_a_decorator_it_gives_the_function_back() -> None:
    mine = registry()

    @mine.register(Base)
    def function(value: Base) -> str:
        return "base"

    assert function(Base()) == mine(Base()) == "base"


def test_abstract_classes_count_what_they_count_as_their_own() -> None:
    class Shape(abc.ABC):
        @abc.abstractmethod
        def area(self) -> float: ...

    Shape.register(Base)
    mine = registry()
    mine.register(Shape, lambda value: "shape")
    mine.register(Sized, lambda value: "sized")
    assert (mine(Derived()), mine({}), mine(3.5)) == ("shape", "sized", 3.5)


def test_defaults_do_not_take_the_place_of_what_is_registered() -> None:
    mine = registry()
    mine.register(Base, lambda value: "user's")
    mine.default({Base: lambda value: "ours", Derived: lambda value: "ours"})
    assert (mine(Base()), mine(Derived())) == ("user's", "ours")


def test_types_without_end_are_let_go_of() -> None:
    mine = registry()
    mine.register(Base, lambda value: "base")
    for _ in range(MOST_KNOWN + 10):
        assert mine(type("Each", (Base,), {})()) == "base"
    assert len(mine._known) <= MOST_KNOWN


@pytest.mark.parametrize("which", [flow.readonly, flow.copied])
@pytest.mark.parametrize("kind", [np.ndarray, list, dict, tuple, set, int, str, type(None), object])
def test_what_is_settled_cannot_be_registered(which: ByType, kind: type) -> None:
    with pytest.raises(TypeError, match=rf"{kind.__name__} is settled; register a class of your own"):
        which.register(kind, lambda value: value)


@pytest.mark.parametrize("kind", [3, "Image", list[int], lambda value: value])
def test_only_classes_can_be_registered(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"flow.readonly.register: expected a class, got"):
        flow.readonly.register(kind)


def test_only_functions_can_be_registered_for_them() -> None:
    with pytest.raises(TypeError, match=r"flow.copied.register: expected a function of the value, got int"):
        flow.copied.register(Base, 3)  # type: ignore[arg-type]


def test_they_tell_what_they_are() -> None:
    assert (repr(flow.readonly), repr(flow.copied)) == ("<flow.readonly>", "<flow.copied>")
    assert "register(Image)" in (flow.readonly.__doc__ or "")
    assert "register(Image)" in (flow.copied.__doc__ or "")


# ---------------------------------------------------------------- in pipelines


class Image:
    def __init__(self, pixels: Any) -> None:
        self.pixels = pixels


@flow.readonly.register(Image)
def _(image: Image) -> Image:
    return type(image)(flow.readonly(image.pixels))


@flow.copied.register(Image)
def _(image: Image) -> Image:
    return type(image)(image.pixels.copy())


class Photo(Image):
    pass


@dataclass
class Scan:
    image: Any
    pixels: Any


@flow.readonly.register(Scan)
def _(scan: Scan) -> Scan:
    return Scan(flow.readonly(scan.image), "hidden")


@flow.op
def paint(image: Any) -> Any:
    image.pixels[0] = 9
    return image


@flow.op(writes=("image",))
def paint_into(image: Any) -> Any:
    image.pixels[0] = 9
    return image


@flow.op
def first(image: Any) -> float:
    return float(image.pixels[0])


@pytest.mark.parametrize("kind", [Image, Photo])
def test_types_of_the_users_are_protected_and_copied(kind: type[Image]) -> None:
    mine = kind(np.zeros(3))
    with pytest.raises(ValueError, match="read-only") as caught:
        flow.pipeline(lambda image: (paint(image), first(image))).run(mine)
    assert "writes=" in "\n".join(caught.value.__notes__)
    painted, before = flow.pipeline(lambda image: (paint_into(image), first(image))).run(mine)
    assert (type(painted), painted.pixels[0], before, mine.pixels[0]) == (kind, 9, 0, 0)
    listed = flow.pipeline(lambda image: [first(image), paint_into([image][0])]).run(mine)
    assert (listed[0], listed[1].pixels[0], mine.pixels[0]) == (0, 9, 0)


def test_a_type_of_the_users_counts_before_a_dataclass_does() -> None:
    mine = Scan(Image(np.zeros(3)), "seen")
    look = flow.op(lambda scan: (scan.pixels, scan.image.pixels.flags.writeable))
    assert flow.pipeline(look).run(mine) == ("hidden", False)
    assert flow.pipeline(lambda scan: look([scan][0])).run(mine) == ("hidden", False)


def test_an_error_of_a_users_function_is_one_of_the_operator() -> None:
    class Broken:
        pass

    @flow.readonly.register(Broken)
    def _(value: Broken) -> Broken:
        raise KeyError("no view of it")

    with pytest.raises(KeyError, match="no view of it") as caught:
        flow.pipeline(flow.op(lambda value: 1, name="reader")).run(Broken())
    assert "'reader'" in caught.value.__notes__[0]
