"""Django: the hub in front of Django's ASGI handler, all in one file.

Needs:  pip install ./hubbub django   (./hubbub is the checkout)
Run:    uvicorn django_app:app --ws hubbub:Protocol   (in this folder)
Listen: hubbub connect ws://localhost:8000/ws
Try:    curl localhost:8000/orders/7   (every socket hears of it)
"""

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from hubbub import Client, CommandError, Hub

if not settings.configured:
    settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="change me", ALLOWED_HOSTS=["*"])

hub = Hub()


def order(request: HttpRequest, number: int) -> JsonResponse:
    """A plain view: Django runs it in a thread, `broadcast` may be called from any."""
    hub.broadcast({"type": "order", "number": number})
    return JsonResponse({"clients": len(hub)})


@hub.on_message
def said(client: Client, text: str) -> None:
    raise CommandError("listen_only", "this socket only listens")


urlpatterns = [path("orders/<int:number>", order)]
app = hub.mount(get_asgi_application(), "/ws")
