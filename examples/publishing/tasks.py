"""A task of Celery that tells a room of its result, once, however often it is tried.

Needs: pip install './hubbub[valkey]' 'celery[redis]'   (./hubbub is the checkout), and hubs on the same server
Run:   HUBBUB_BROKER=valkey://localhost:6379 celery -A tasks worker   (in this folder)
Try:   celery -A tasks call tasks.report --args '["chat:1", "it is done"]'
See:   HUBBUB_BROKER=valkey://localhost:6379 hubbub tail chat:1
"""

import os

from celery import Celery, Task

from hubbub import Publisher

app = Celery("tasks", broker=os.environ.get("CELERY_BROKER", "redis://localhost:6379/1"))
publisher = Publisher()  # on HUBBUB_BROKER; each process of the worker connects by itself


@app.task(bind=True)
def report(task: Task, room: str, text: str) -> int:
    receipt = publisher.publish(room, {"report": text}, key=task.request.id)
    return receipt.position.offset if receipt.position else 0
