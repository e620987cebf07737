"""The HTTP edge: a 300-byte JSON POST, echoed, over keep-alive connections.

Measured with everything on: strict parsing, identity, admission, one record per request, security headers.
"""

from __future__ import annotations

import argparse
import shutil

from bench.measure import Program, Server, compare, python_with

BODY = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"'
BODY += b"x" * (300 - len(BODY) - 4) + b'"}}}'

NGINX = """
daemon off; master_process off; worker_processes 1; pid {directory}/pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 1000000000; client_body_temp_path {directory}; proxy_temp_path {directory};
    fastcgi_temp_path {directory}; uwsgi_temp_path {directory}; scgi_temp_path {directory};
    server {{ listen 127.0.0.1:{port}; location / {{ default_type application/json; return 200 '{body}'; }} }}
}}
"""


def run(arguments: argparse.Namespace) -> None:
    rounds = arguments.rounds or (2 if arguments.quick else 7)
    seconds = arguments.seconds or (0.5 if arguments.quick else 3.0)
    edge = Server.python("mcptunnel_echo")
    programs = [
        Program("mcptunnel", edge),
        Program("mcptunnel, every head different", edge, vary=True),
        Program("twisted.web Site, no access log", Server.python("twisted_echo")),
    ]
    uvicorn = python_with("uvicorn", "httptools", "uvloop")
    if uvicorn is not None:
        programs.append(Program("uvicorn, httptools, uvloop, bare ASGI", Server.python("uvicorn_echo", uvicorn)))
    else:
        print("uvicorn: cannot be installed here, left out")
    if shutil.which("nginx"):
        programs.append(Program("nginx, return 200", Server.nginx(NGINX, body=BODY.decode())))
    else:
        print("nginx: not installed, left out")
    if arguments.only:
        programs = [p for p in programs if any(word in p.name for word in arguments.only)]
    compare(
        "http",
        programs,
        baseline="twisted.web Site, no access log",
        body=BODY,
        rounds=rounds,
        seconds=seconds,
        connections=arguments.connections,
    )
