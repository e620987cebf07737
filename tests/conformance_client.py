"""What the conformance harness starts as its client: the SDK's conformance client, with a daemon in between.

python -m tests.conformance_client CLIENT PLACE URL

CLIENT is the client's script, PLACE a directory for what the daemon leaves behind, URL the server of the harness.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests.daemon import Daemon, python_env, twistd
from tests.processes import Process, free_port

CLIENT_SECONDS = 30


def main(client: str, where: str, url: str) -> int:
    """Run the client against a daemon in front of ``url``; the client's exit status."""
    place = Path(tempfile.mkdtemp(dir=where))
    port = free_port()
    access = place / "access.log"
    config = place / "mcptunnel.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "server": {"host": "127.0.0.1", "port": port},
                "auth": {"anonymous": True},
                "mcpServers": {"mock": {"url": url}},
                "logging": {"access": "json", "access_file": str(access)},
            }
        )
    )
    process = Process.start("twistd", twistd(config), place=place, env=python_env())
    daemon = Daemon(process, port, access, config)
    try:
        daemon.process.wait_for_port(port)
        address = f"http://127.0.0.1:{port}/servers/mock/mcp"
        status = subprocess.run([sys.executable, client, address], timeout=CLIENT_SECONDS, check=False).returncode
    finally:
        daemon.stop()
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
