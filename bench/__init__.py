"""Side-by-side measurements: every figure is a ratio between programs that ran in turns, in one run, on one machine.

    python -m bench http            # requests per second and CPU per request of the HTTP edge against its peers
    python -m bench tls             # handshakes, bulk and idle memory against nginx and asyncio
    python -m bench http --quick    # the same, short: to see that it works

Peers that are not installed are left out and named (nginx), or installed into ``bench/.peers`` first (uvicorn). Results
are printed and written to ``bench/out/``. CPU time is the kernel's account of the server's processes; on a shared
machine it is the figure to trust.
"""
