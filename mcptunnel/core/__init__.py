"""Floor 0: pure rules. Nothing here imports Twisted or OpenSSL, opens a file or a socket, or reads a clock."""
