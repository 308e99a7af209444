"""The attributes of an object that are its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dataflow.graph.attributes import dict_of, own_attributes


class Base:
    __slots__ = ("__dict__", "__private", "__weakref__", "unset", "x")
    of_class = 1

    def __init__(self) -> None:
        self.x = 1
        self.__private = 2
        self.label: Any = 3

    @property
    def computed(self) -> Any:
        raise AssertionError

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(name)


class _Derived(Base):
    __slots__ = "x"  # noqa: PLC0205  # a slot of the same name, which hides the other

    def __init__(self) -> None:
        super().__init__()
        self.x = 4


@dataclass(slots=True)
class Record:
    a: int
    b: int


def test_what_counts_is_in_the_dict_and_in_slots_that_are_set() -> None:
    assert dict(own_attributes(Base())) == {"label": 3, "x": 1, "_Base__private": 2}
    assert dict(own_attributes(_Derived())) == {"label": 3, "x": 4, "_Base__private": 2}
    assert list(own_attributes(Record(1, 2))) == [("a", 1), ("b", 2)]
    assert list(own_attributes(ValueError(1))) == []
    assert list(own_attributes(3)) == list(own_attributes(object())) == []


def test_attributes_may_be_set_meanwhile() -> None:
    class Empty: ...

    empty: Any = Empty()
    empty.a = 1
    for name, _ in own_attributes(empty):
        setattr(empty, f"{name}_again", 2)
    assert dict_of(empty) == {"a": 1, "a_again": 2}
