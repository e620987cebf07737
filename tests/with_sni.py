"""Run a script of tlsfuzzer with ``server_name`` in every ClientHello: python with_sni.py SCRIPT ARGUMENTS.

Sessions are resumed under the exact name that they were made for, and tlsfuzzer asks for none.
"""

import runpy
import sys
from typing import Any

from tlsfuzzer.messages import ClientHelloGenerator
from tlslite.constants import ExtensionType
from tlslite.extensions import SNIExtension

_generate = ClientHelloGenerator.generate


def generate(self: Any, status: Any) -> Any:
    """The message, with the name unless it has one; server_name comes first, as pre_shared_key must come last."""
    if self.extensions is not None and ExtensionType.server_name not in self.extensions:
        name = SNIExtension().create(bytearray(b"localhost"))
        self.extensions = {ExtensionType.server_name: name, **self.extensions}
    return _generate(self, status)


ClientHelloGenerator.generate = generate
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
