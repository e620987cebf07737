"""The operator's listener as the daemon knows it, whether there is one or not."""

from __future__ import annotations

from attrs import frozen

from mcptunnel.services.listener import Listener
from mcptunnel.web.site import Site

__all__ = ["AdminSide"]


@frozen
class AdminSide:
    """The listener, and what serves its connections."""

    listener: Listener
    site: Site
