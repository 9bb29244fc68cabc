"""The stack machine that reads a pickle: it imports nothing and calls nothing.

Python's own unpickler runs whatever a file asks for. This one follows the opcodes (PEP 307, 3154,
574), keeps every object that a pickle would build as an inert `Recipe`, and refuses each global
that is not on the caller's list at the moment it is named.
"""

import codecs
import pickletools
from collections.abc import Callable, Container
from dataclasses import dataclass
from io import BufferedIOBase
from typing import IO, Any, cast


@dataclass(frozen=True)
class Global:
    """A name that a pickle refers to. It stands for the name only; nothing is imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Recipe:
    """An object that a pickle wants built: what from, with which arguments and state."""

    def __init__(self, made_of: Global, args: tuple[Any, ...]):
        self.made_of = made_of
        self.args = args
        self.state: Any = None
        self.items: dict[Any, Any] = {}
        self.members: list[Any] = []


class PickleFault(Exception):
    """The bytes are not a whole, sane pickle."""


class ForbiddenGlobal(Exception):
    """The pickle names something that a file of data has no use for."""

    def __init__(self, name: Global):
        super().__init__(str(name))
        self.name = name


def parse(
    stream: BufferedIOBase,
    known: Container[tuple[str, str]],
    persistent: Callable[[Any], Any] | None = None,
    skip_unknown: bool = False,
) -> Any:
    """One pickle from `stream`, up to its STOP, as containers, values and recipes.

    Args:
      stream: positioned at the pickle's first byte; left behind its last.
      known: the globals that may be named.
      persistent: what stands for a persistent id; without it these are a fault.
      skip_unknown: keep unknown globals as (inert) recipes instead of refusing them.

    Raises:
      ForbiddenGlobal, PickleFault, or what a damaged pickle makes Python raise; see
        `jaxrecon.io.pickles.explained`.
    """
    machine = _Machine(known, persistent, skip_unknown)
    while True:
        code = stream.read(1)
        if not code:
            raise PickleFault("it ends too early")
        op = _OPCODES.get(code.decode("latin-1"))
        if op is None:
            raise PickleFault(f"unknown opcode {code!r}")
        if op.name == "STOP":
            return machine.pop()
        argument: Any = None
        if op.name == "STRING":
            # The standard reader takes ASCII only; Python 2 wrote array data in such strings.
            argument = codecs.escape_decode(stream.readline().strip()[1:-1])[0].decode("latin-1")
        elif op.arg is not None:
            argument = op.arg.reader(cast(IO[bytes], stream))
        machine.step(op.name, argument)


_OPCODES = {op.code: op for op in pickletools.opcodes}
_MARK = object()

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
# Opcodes whose argument is the value itself.
_PLAIN = frozenset(
    ["INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"]
    + ["STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"]
    + ["UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BYTEARRAY8"]
)
_CONTAINERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("builtins", "list"): list,
    ("builtins", "dict"): dict,
    ("builtins", "set"): set,
    ("__builtin__", "list"): list,
    ("__builtin__", "dict"): dict,
    ("__builtin__", "set"): set,
    ("collections", "OrderedDict"): dict,
}


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(
        self, known: Container[tuple[str, str]], persistent: Callable[[Any], Any] | None, skip: bool
    ):
        self.known, self.persistent, self.skip = known, persistent, skip
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise PickleFault("a mark is missing")
        taken = self.stack[at + 1 :]
        del self.stack[at:]
        return taken

    def step(self, name: str, argument: Any) -> None:
        push = self.stack.append
        match name:
            case "PROTO" | "FRAME":
                pass
            case _ if name in _PLAIN:
                push(argument)
            case _ if name in _CONSTANTS:
                push(_CONSTANTS[name])
            case _ if name in _EMPTY:
                push(_EMPTY[name]())
            case "MARK":
                push(_MARK)
            case "POP":
                self.pop()
            case "POP_MARK":
                self.pop_to_mark()
            case "DUP":
                push(self.stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[int(argument)] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                push(self.memo[int(argument)])
            case "LIST":
                push(self.pop_to_mark())
            case "TUPLE":
                push(tuple(self.pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                push(tuple([self.pop() for _ in range(count)][::-1]))
            case "DICT":
                flat = self.pop_to_mark()
                push(dict(zip(flat[::2], flat[1::2], strict=True)))
            case "FROZENSET":
                push(frozenset(self.pop_to_mark()))
            case "APPEND":
                value = self.pop()
                _extend(self.stack[-1], [value])
            case "APPENDS" | "ADDITEMS":
                values = self.pop_to_mark()
                _extend(self.stack[-1], values)
            case "SETITEM":
                value, key = self.pop(), self.pop()
                _items(self.stack[-1])[key] = value
            case "SETITEMS":
                flat = self.pop_to_mark()
                _items(self.stack[-1]).update(zip(flat[::2], flat[1::2], strict=True))
            case "GLOBAL":
                push(self.find(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                short, module = self.pop(), self.pop()
                push(self.find(module, short))
            case "REDUCE" | "NEWOBJ":
                args, made_of = self.pop(), self.pop()
                push(_recipe(made_of, args))
            case "NEWOBJ_EX":
                keywords, args, made_of = self.pop(), self.pop(), self.pop()
                recipe = _recipe(made_of, args)
                recipe.state = keywords
                push(recipe)
            case "INST":
                made_of = self.find(*argument.split(" ", 1))
                push(_recipe(made_of, tuple(self.pop_to_mark())))
            case "OBJ":
                made_of, *rest = self.pop_to_mark()
                push(_recipe(made_of, tuple(rest)))
            case "BUILD":
                state = self.pop()
                # Attributes set on a plain container (state_dict._metadata) carry no data.
                if isinstance(self.stack[-1], Recipe):
                    self.stack[-1].state = state
            case "PERSID" | "BINPERSID" if self.persistent is not None:
                push(self.persistent(argument if name == "PERSID" else self.pop()))
            case _:
                raise PickleFault(f"opcode {name} has no place in a file of data")

    def find(self, module: str, name: str) -> Global:
        found = Global(module, name)
        known = (module, name) in self.known or (module, name) in _CONTAINERS
        if not known and not self.skip:
            raise ForbiddenGlobal(found)
        return found


def _recipe(made_of: Any, args: Any) -> Any:
    if not isinstance(made_of, Global) or not isinstance(args, tuple):
        raise PickleFault("it calls something that is not a name")
    if str(made_of) in ("copy_reg._reconstructor", "copyreg._reconstructor"):
        made_of, args = args[0], ()  # protocols 0 and 1: (class, base, state of the base)
        if not isinstance(made_of, Global):
            raise PickleFault("it rebuilds something that is not a class")
    container = _CONTAINERS.get((made_of.module, made_of.name))
    return Recipe(made_of, args) if container is None else container(*args)


def _extend(target: Any, values: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(values)
    elif isinstance(target, set):
        target.update(values)
    elif isinstance(target, Recipe):
        target.members.extend(values)
    else:
        raise PickleFault("it appends to something that is no list")


def _items(target: Any) -> dict[Any, Any]:
    if isinstance(target, Recipe):
        return target.items
    if not isinstance(target, dict):
        raise PickleFault("it sets items of something that is no dictionary")
    return target
