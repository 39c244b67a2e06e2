"""`hubbub bench`: a load on a WebSocket server of one's own, and what comes of it.

`run` commands the worker processes, `worker` is one of them, `ipc` is what they exchange. In a worker
`connecting` opens the sockets of `client`, `pacer` says when to send, and `accounting` follows every
message. `result` makes the figures, `table` puts them in words. What must not live here: options
and screens (the command), other servers to compare with (the folder `benchmarks`).
"""
