"""Installing the automations of deployments/automations.yaml."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import anyio
import yaml
from prefect.blocks.fields import SecretDict
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import PrefectClient, SyncPrefectClient
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound

from flows.lab.deploying import shipped
from flows.lab.lab import Lab

NOTIFY_BLOCK = "agd-notify"
_OURS = "agd: "
"""So begin the names of our automations."""
_NOTIFY_BLOCK_TYPE = "custom-webhook"
_URL = "agd_notify_url"
_MESSAGE = {"text": "{{subject}}\n{{body}}"}


def install_automations(
    client: SyncPrefectClient, lab: Lab, notify_url: str | None, announce: Callable[[str], None]
) -> None:
    """Install every automation, or bring the installed one up to date; what a person switched off stays off.

    Args:
        client: of the lab's server.
        lab: whose server that is.
        notify_url: where `notify` messages go, as a POST of {"text": ...}; None leaves what was set before.
        announce: told of an action that cannot be installed yet.
    """
    entries = yaml.safe_load(shipped("deployments/automations.yaml").read_text(encoding="utf-8"))
    _remove_others(client, {entry["name"] for entry in entries})
    block = anyio.run(_save_block, lab, notify_url) if notify_url else _saved_block(client)
    for entry in entries:
        message = entry.pop("notify", None)
        notifications = [_notification(block, message)] if block and message else []
        actions = [*_resolved(client, entry, announce), *notifications]
        if actions:
            _install(client, AutomationCore.model_validate(entry | {"actions": actions}))


def _remove_others(client: SyncPrefectClient, names: set[str]) -> None:
    """Remove what an earlier version of ours has installed and this one does without."""
    for automation in client.read_automations():
        if automation.name.startswith(_OURS) and automation.name not in names:
            client.delete_automation(automation.id)


def _resolved(
    client: SyncPrefectClient, entry: dict[str, Any], announce: Callable[[str], None]
) -> list[dict[str, Any]]:
    """An entry's actions with deployment names turned into ids, without those of deployments that do not exist."""
    found = []
    for action in entry["actions"]:
        name = action.pop("deployment", None)
        try:
            found.append(action | ({"deployment_id": client.read_deployment_by_name(name).id} if name else {}))
        except ObjectNotFound:
            announce(f"automation {entry['name']!r}: there is no deployment {name}, so it will not start one")
    return found


def _install(client: SyncPrefectClient, automation: AutomationCore) -> None:
    installed = client.read_automations_by_name(automation.name)
    if installed:
        client.update_automation(installed[0].id, automation.model_copy(update={"enabled": installed[0].enabled}))
    else:
        client.create_automation(automation)


def _notification(block: UUID, message: dict[str, str]) -> dict[str, Any]:
    return {"type": "send-notification", "block_document_id": block, **message}


def _saved_block(client: SyncPrefectClient) -> UUID | None:
    try:
        return client.read_block_document_by_name(NOTIFY_BLOCK, _NOTIFY_BLOCK_TYPE).id
    except ObjectNotFound:
        return None


async def _save_block(lab: Lab, url: str) -> UUID:
    secret = SecretDict({_URL: url})  # it may hold a token: encrypted in the database, starred out in the API
    block = CustomWebhookNotificationBlock(name=NOTIFY_BLOCK, url=f"{{{{{_URL}}}}}", json_data=_MESSAGE, secrets=secret)
    async with PrefectClient(lab.api_url, auth_string=lab.auth) as client:
        return await block.asave(NOTIFY_BLOCK, overwrite=True, client=client)
