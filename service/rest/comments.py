"""Comments of proto files, by full name."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

_Path = tuple[int, ...]

_FILE: Final = {"message_type": 4, "enum_type": 5, "service": 6}
_CHILDREN: Final[dict[str, dict[str, int]]] = {
    "DescriptorProto": {"field": 2, "nested_type": 3, "enum_type": 4, "oneof_decl": 8},
    "EnumDescriptorProto": {"value": 2},
    "ServiceDescriptorProto": {"method": 2},
}


def comments_of(files: FileDescriptorSet | None) -> dict[str, str]:
    """Return the comment of everything that has one.

    files: as written by `protoc --include_source_info`; None gives no comments.
    Values of an enum are named by the enum's full name and their own, unlike in protobuf.
    """
    return {name: text for file in (files.file if files is not None else ()) for name, text in _of_file(file)}


def _of_file(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    texts = {
        tuple(location.path): _clean(location.leading_comments or location.trailing_comments)
        for location in file.source_code_info.location
    }
    for name, path in _named(file, _FILE, file.package, ()):
        if texts.get(path):
            yield name, texts[path]


def _named(parent: Any, kinds: dict[str, int], scope: str, path: _Path) -> Iterator[tuple[str, _Path]]:
    for kind, number in kinds.items():
        children: Iterable[Any] = getattr(parent, kind)
        for index, child in enumerate(children):
            name = f"{scope}.{child.name}" if scope else child.name
            here = (*path, number, index)
            yield name, here
            yield from _named(child, _CHILDREN.get(type(child).__name__, {}), name, here)


def _clean(comment: str) -> str:
    return "\n".join(line.removeprefix(" ").rstrip() for line in comment.splitlines()).strip()
