"""What the contract says of each reason, read from its comments."""

import re

from chatsession.v1 import error_reason_pb2

from tests.support.server import ROOT

_PROTO = ROOT / "protos" / "chatsession" / "v1" / "error_reason.proto"
_VALUE = re.compile(r"  // ([A-Z_]+)(?: \(HTTP \d+\))?\. (REST only: )?.*\n(?:  //.*\n)*  ([A-Z_]+) = \d+;")


def _read() -> dict[str, tuple[str, bool]]:
    return {reason: (code, bool(rest_only)) for code, rest_only, reason in _VALUE.findall(_PROTO.read_text("utf-8"))}


_SAID = _read()

CODES = {reason: code for reason, (code, _) in _SAID.items()}
"""The gRPC code of each reason."""

OF_BOTH = {reason for reason, (_, rest_only) in _SAID.items() if not rest_only}
OF_REST = set(_SAID) - OF_BOTH

assert {"ERROR_REASON_UNSPECIFIED", *_SAID} == set(error_reason_pb2.ErrorReason.keys())
