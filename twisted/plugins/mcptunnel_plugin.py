"""Makes ``mcptunnel`` known to twistd."""

from twisted.application.service import ServiceMaker

mcptunnel = ServiceMaker(
    "mcptunnel",
    "mcptunnel.tap",
    "Put MCP servers, HTTP APIs and command lines behind one secure address.",
    "mcptunnel",
)
