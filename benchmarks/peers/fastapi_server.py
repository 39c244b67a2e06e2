"""FastAPI's documented `ConnectionManager`, one for each room.

Run:  uvicorn fastapi_server:app --loop uvloop --http httptools
"""

from collections import defaultdict

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()


class ConnectionManager:
    def __init__(self) -> None:
        self.active_connections: list[WebSocket] = []

    async def connect(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.active_connections.append(websocket)

    def disconnect(self, websocket: WebSocket) -> None:
        self.active_connections.remove(websocket)

    async def send_personal_message(self, message: str, websocket: WebSocket) -> None:
        await websocket.send_text(message)

    async def broadcast(self, message: str) -> None:
        for connection in self.active_connections:
            await connection.send_text(message)


managers: defaultdict[str, ConnectionManager] = defaultdict(ConnectionManager)


@app.websocket("/ws")
async def talk(websocket: WebSocket, room: str = "", mode: str = "") -> None:
    manager = managers[room]
    await manager.connect(websocket)
    try:
        while True:
            data = await websocket.receive_text()
            if mode == "echo":
                await manager.send_personal_message(data, websocket)
            else:
                await manager.broadcast(data)
    except WebSocketDisconnect:
        manager.disconnect(websocket)
