"""`hubbub bench`: a load on a WebSocket server of one's own, and what comes of it.

It owns a load's processes, sockets and figures. It must not know the hub that may be at the other
end. `run` commands the worker processes, `worker` is one of them, `ipc` is what they exchange. In a
worker `connecting` opens the sockets of `client`, `pacer` says when to send, and `accounting` follows
every message. `result` makes the figures, `table` puts them in words. What must not live here:
options and screens (the command), other servers to compare with (the folder `benchmarks`).
"""
