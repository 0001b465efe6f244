"""The methods by which a bot gets its updates: long polls, or a webhook instead."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.chat.telegram.bot_methods import Request
from tests.chat.telegram.refusal import bad_request
from tests.chat.telegram.updates import UpdateQueue, Webhook
from tests.chat.telegram.world import Json

MAX_POLL_S = 50


async def _get_updates(request: Request) -> list[Json]:
    queue = request.bot.updates
    queue.subscribe(request.get("allowed_updates"))
    limit = min(max(request.get("limit", 100), 1), 100)
    timeout_s = min(max(request.get("timeout", 0), 0), MAX_POLL_S)
    return await queue.fetch(request.get("offset", 0), limit, timeout_s)


async def _set_webhook(request: Request) -> bool:
    url = request.get("url", "")
    if not url:
        return await _delete_webhook(request)
    if not url.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        raise bad_request("bad webhook: An HTTPS URL must be provided for webhook")
    secret = request.get("secret_token")
    if secret and len(secret) > 256:
        raise bad_request("secret token is too long")
    if secret and not secret.replace("-", "").replace("_", "").isalnum():
        raise bad_request("secret token contains unallowed characters")
    queue = request.bot.updates
    queue.subscribe(request.get("allowed_updates"))
    if request.get("drop_pending_updates"):
        queue.pending.clear()
    queue.set_webhook(Webhook(url=url, secret_token=secret, max_connections=request.get("max_connections", 40)))
    return True


async def _delete_webhook(request: Request) -> bool:
    if request.get("drop_pending_updates"):
        request.bot.updates.pending.clear()
    request.bot.updates.set_webhook(None)
    return True


async def _get_webhook_info(request: Request) -> Json:
    queue = request.bot.updates
    hook = queue.webhook
    info: Json = {"url": "", "has_custom_certificate": False, "pending_update_count": len(queue.pending)}
    if hook is not None:
        info |= {"url": hook.url, "max_connections": hook.max_connections, "ip_address": "127.0.0.1"}
    if hook is not None and hook.last_error is not None:
        info |= {"last_error_date": hook.last_error_date, "last_error_message": hook.last_error}
    if queue.kinds != UpdateQueue.__dataclass_fields__["kinds"].default:
        info["allowed_updates"] = sorted(queue.kinds)
    return info


UPDATE_METHODS: dict[str, Callable[[Request], Awaitable[Any]]] = {
    "getupdates": _get_updates,
    "setwebhook": _set_webhook,
    "deletewebhook": _delete_webhook,
    "getwebhookinfo": _get_webhook_info,
}
