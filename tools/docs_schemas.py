"""JSON Schemas and the AsyncAPI document, made from the models and topics of the protocol."""

import ast
import inspect
import io
import json
import re
import typing
from itertools import pairwise
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from ruamel.yaml import YAML

from docs_fields import FIELDS
from fleetmark_collector.campaigns.file import campaign_json_schema
from fleetmark_protocol import messages, metrics, records
from fleetmark_protocol.ids import JOB_ID_PATTERN, NAME_PATTERN
from fleetmark_protocol.messages import MAX_PAYLOAD_BYTES
from fleetmark_protocol.topics import PREFIX, Channel
from fleetmark_protocol.values import MAX_SCALARS
from fleetmark_protocol.version import SCHEMA_VERSION

COMMAND = "python tools/generate_docs.py"

MESSAGES: dict[Channel, type[BaseModel]] = {
    "status": messages.Status,
    "inventory": messages.Inventory,
    "data": messages.Batch,
    "ack": messages.Ack,
    "jobs": messages.Assignment,
}
RECORDS: dict[str, type[BaseModel]] = {
    "telemetry": records.TelemetryRecord,
    "trial": records.TrialRecord,
    "load": records.LoadRecord,
    "job": records.JobRecord,
    "event": records.EventRecord,
}
FROM_AGENT = ("status", "inventory", "data")
RETAINED = ("status", "inventory", "jobs")

Json = dict[str, Any]


def slug(model: type[BaseModel]) -> str:
    """Return a model's name as file names and links have it."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", model.__name__).lower()


def json_schema(model: type[BaseModel], name: str) -> str:
    """Return a model's JSON Schema as the text of its file."""
    schema = _described({model.__name__: model.model_json_schema()})[model.__name__]
    return _schema_text(schema, name, SCHEMA_VERSION)


def campaign_schema(name: str) -> str:
    """Return the JSON Schema of campaign files, which editors check them by, as a file's text."""
    schema = campaign_json_schema()
    return _schema_text(schema, name, schema["properties"]["version"]["const"])


def _schema_text(schema: Json, name: str, version: int) -> str:
    top = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:fleetmark:v{version}:{name.removesuffix('.schema.json')}",
    }
    return json.dumps({**top, **schema}, indent=2, ensure_ascii=False) + "\n"


def _described(schemas: dict[str, Json]) -> dict[str, Json]:
    """Put the docstrings of fields, and units, into the schemas of models and their `$defs`."""
    for name, schema in schemas.items():
        _described(schema.get("$defs", {}))
        for field, body in schema.get("properties", {}).items():
            text = field_text(name, field)
            if text:
                body["description"] = text
            if field == "kind" and "const" in body:
                # The model fills it in for its maker; the reader tells records apart by it.
                schema["required"] = ["kind", *schema.get("required", [])]
            if field in metrics.METRICS:
                body["x-unit"] = metrics.METRICS[field].unit
    return schemas


def field_text(model: str, field: str) -> str:
    """Return what is known about a field: its metric's description, or its docstring."""
    if field in metrics.METRICS:
        return metrics.METRICS[field].description
    return _FIELD_DOCS.get((model, field)) or FIELDS.get(field, "")


def _field_docs() -> dict[tuple[str, str], str]:
    """Return (model, field) -> the string literal beneath the field, inherited ones included."""
    found: dict[tuple[str, str], str] = {}
    for module in (records, messages):
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef):
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                inherited = {f: t for (m, f), t in found.items() if m in bases}
                for field, text in {**inherited, **_docs_in(node)}.items():
                    found[node.name, field] = text
    return found


def _docs_in(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for field, after in pairwise(node.body):
        match field, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                value=ast.Constant(value=str(text))
            ):
                found[name] = inspect.cleandoc(text).replace("\n", " ")
    return found


_FIELD_DOCS = _field_docs()


_CHANNEL_TEXT: dict[Channel, str] = {
    "status": "Birth and will. The will carries the `boot_id` of the connection it belongs to, so "
    "that a late one cannot overwrite a newer birth.",
    "inventory": "What the device is and has; sent at birth and whenever it changes.",
    "data": "A batch of records from the device's outbox; kept there until acknowledged.",
    "ack": "Ranges of an outbox that are durably written; only this lets a device forget.",
    "jobs": "The desired state of one job; an empty retained message clears it when the job is "
    "terminal.",
}
_PARAMETERS: dict[str, tuple[str, str]] = {
    "fleet": (NAME_PATTERN, "Name of the fleet."),
    "device": (NAME_PATTERN, "Id of the device."),
    "job_id": (JOB_ID_PATTERN, "Id of the job: `{campaign_id}.{device}.{number}`."),
}


def asyncapi() -> str:
    """Return the AsyncAPI document as YAML."""
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "fleetmark",
            "version": f"{SCHEMA_VERSION}.0.0",
            "description": "What agents and collector say to each other over MQTT (3.1.1 or 5), "
            "told from the agent's side: it sends status, inventory and data, and receives acks "
            f"and jobs. Payloads are JSON in UTF-8, at most {MAX_PAYLOAD_BYTES} bytes, QoS 1. "
            "Unknown fields of messages are ignored; unknown plain fields of records are kept, up "
            f"to {MAX_SCALARS}.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "plain": {
                "host": "localhost:1883",
                "protocol": "mqtt",
                "description": "A broker on the same machine.",
            },
            "tls": {
                "host": "{host}:8883",
                "protocol": "mqtts",
                "description": "A broker elsewhere: TLS, and credentials per device.",
                "variables": {"host": {"description": "Name in the broker's certificate."}},
            },
        },
        "channels": {channel: _channel(channel) for channel in MESSAGES},
        "operations": {_operation_name(channel): _operation(channel) for channel in MESSAGES},
        "components": {
            "messages": {model.__name__: _message(model) for model in MESSAGES.values()},
            "schemas": _component_schemas(),
        },
    }
    out = io.StringIO()
    yaml = YAML()
    # Long lines are left to the reader: how they would be folded depends on the writer's version.
    yaml.width = 100_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.ignore_aliases = lambda _: True
    yaml.dump(document, out)
    return f"# Generated by `{COMMAND}`; changes made here are lost.\n{out.getvalue()}"


def _channel(channel: Channel) -> Json:
    address = f"{PREFIX}/{{fleet}}/{{device}}/{channel}"
    names = ["fleet", "device"]
    if channel == "jobs":
        address += "/{job_id}"
        names.append("job_id")
    model = MESSAGES[channel].__name__
    return {
        "address": address,
        "description": _CHANNEL_TEXT[channel],
        "parameters": {
            name: {"description": f"{_PARAMETERS[name][1]} Matches `{_PARAMETERS[name][0]}`."}
            for name in names
        },
        "messages": {model: {"$ref": f"#/components/messages/{model}"}},
    }


def _operation_name(channel: Channel) -> str:
    verb = "send" if channel in FROM_AGENT else "receive"
    return f"{verb}{MESSAGES[channel].__name__}"


def _operation(channel: Channel) -> Json:
    model = MESSAGES[channel].__name__
    return {
        "action": "send" if channel in FROM_AGENT else "receive",
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": first_line(MESSAGES[channel]),
        "messages": [{"$ref": f"#/channels/{channel}/messages/{model}"}],
        "bindings": {"mqtt": {"qos": 1, "retain": channel in RETAINED, "bindingVersion": "0.2.0"}},
    }


def _message(model: type[BaseModel]) -> Json:
    return {
        "name": model.__name__,
        "title": model.__name__,
        "summary": first_line(model),
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
    }


def _component_schemas() -> Json:
    models = [(model, "validation") for model in MESSAGES.values()]
    _, schema = models_json_schema(
        typing.cast(Any, models), ref_template="#/components/schemas/{model}"
    )
    return typing.cast(Json, _as_draft_07(_described(schema["$defs"])))


def _as_draft_07(node: Any) -> Any:
    """AsyncAPI's own schemas are a superset of JSON Schema draft 07: say tuples its way.

    The discriminator is dropped: there it may only name models, and our kinds have names of their
    own; the alternatives are told apart by their constant `kind` all the same.
    """
    if isinstance(node, list):
        return [_as_draft_07(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: _as_draft_07(value) for key, value in node.items() if key != "discriminator"}
    if "prefixItems" in out:
        out["items"] = out.pop("prefixItems")
    return out


def first_line(kind: type) -> str:
    """Return the first paragraph of a docstring as one line."""
    return (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
