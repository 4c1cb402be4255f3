"""OpenAPI links: which answers hold the ids that other operations want in their paths."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from google.protobuf.descriptor import Descriptor

from service.rest.rules import Rule

_MAX_DEPTH: Final = 2
# A bare `id` says nothing of what it is the id of.
_SUFFIX: Final = "_id"


def operation_id(rule: Rule) -> str:
    """Return the name of a rule's operation: service and method, and a number for an additional binding."""
    suffix = f"_{rule.number + 1}" if rule.number else ""
    return f"{rule.method.containing_service.name}_{rule.method.name}{suffix}"


class Links:
    """Links from answers to the operations whose whole path can be filled from them, one for each method.

    A field of the answer, or of a message in it, fits a variable of the same name that ends in `_id`.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._targets = [rule for rule in rules if _wanted(rule)]

    def of(self, rule: Rule) -> dict[str, Any]:
        """Return the links of the rule's answer."""
        if rule.response_body:
            return {}
        found = dict(_ids(rule.method.output_type))
        links: dict[str, Any] = {}
        for target in self._targets:
            wanted = _wanted(target)
            if target.method is not rule.method and wanted <= found.keys():
                link = {
                    "operationId": operation_id(target),
                    "parameters": {name: f"$response.body#/{found[name]}" for name in sorted(wanted)},
                }
                within = {found[name].rpartition("/")[0] for name in wanted} - {""}
                if within:
                    link["description"] = f"If the answer has {' and '.join(f'`{path}`' for path in sorted(within))}."
                links.setdefault(target.method.name, link)
        return links


def _wanted(rule: Rule) -> set[str]:
    """Return the JSON names of the ids in a rule's path; none if the path has anything else to fill in."""
    variables = rule.template.variables
    if not all(
        len(v.field_path) == 1 and v.stop - v.start == 1 and v.field_path[0].endswith(_SUFFIX) for v in variables
    ):
        return set()
    return {rule.method.input_type.fields_by_name[variable.field_path[0]].json_name for variable in variables}


def _ids(message: Descriptor, pointer: str = "", depth: int = _MAX_DEPTH) -> Iterator[tuple[str, str]]:
    """Yield the JSON name and JSON pointer of each id in a message; of those with one name, the nearest comes last."""
    singular = [field for field in message.fields if not field.is_repeated]
    for field in singular:
        if field.message_type is not None and depth > 1:
            yield from _ids(field.message_type, f"{pointer}{field.json_name}/", depth - 1)
    for field in singular:
        if field.name.endswith(_SUFFIX):
            yield field.json_name, pointer + field.json_name
